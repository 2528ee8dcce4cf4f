// swift-tools-version: 6.3
import PackageDescription

// A package of its own, so that nobody who uses the libraries resolves what only the program needs.
let package = Package(
    name: "Tools",
    products: [.executable(name: "uffd-pager", targets: ["uffd-pager"])],
    traits: [
        .trait(name: "NBD", description: "Memory from NBD servers. Needs libnbd (Debian: libnbd-dev).")
    ],
    dependencies: [
        .package(
            name: "swift-userfaultfd", path: "..",
            traits: ["Service", .trait(name: "NBD", condition: .when(traits: ["NBD"]))]),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .target(
            name: "CPagerSupport",
            cSettings: [
                .treatAllWarnings(as: .error), .enableWarning("all"), .enableWarning("extra"),
                .enableWarning("strict-prototypes"),
            ]
        ),
        .executableTarget(
            name: "uffd-pager",
            dependencies: [
                "CPagerSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultHandoff", package: "swift-userfaultfd"),
                .product(
                    name: "UserfaultNBD", package: "swift-userfaultfd", condition: .when(traits: ["NBD"])),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
                .product(name: "UserfaultPagerService", package: "swift-userfaultfd"),
            ],
            swiftSettings: strictSwift
        ),
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
