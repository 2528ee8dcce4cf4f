// swift-tools-version: 6.3
import PackageDescription

// A package of its own, so that nobody who uses the libraries resolves what only the benchmark needs.
let package = Package(
    name: "Benchmarks",
    products: [.executable(name: "uffd-bench", targets: ["uffd-bench"])],
    dependencies: [
        .package(name: "swift-userfaultfd", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/ordo-one/TextTable", from: "0.0.2"),
    ],
    targets: [
        .target(
            name: "CBenchBaseline",
            cSettings: [
                .treatAllWarnings(as: .error),
                .enableWarning("all"),
                .enableWarning("extra"),
                .enableWarning("strict-prototypes"),
            ]
        ),
        .executableTarget(
            name: "uffd-bench",
            dependencies: [
                "CBenchBaseline", "TextTable",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ],
            swiftSettings: strictSwift
        ),
        .testTarget(name: "UserfaultBenchTests", dependencies: ["uffd-bench"], swiftSettings: strictSwift),
    ],
    swiftLanguageModes: [.v6]
)

var strictSwift: [SwiftSetting] {
    [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        .treatAllWarnings(as: .error),
    ]
}
