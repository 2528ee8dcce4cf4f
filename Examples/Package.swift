// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "Examples",
    dependencies: [
        .package(name: "swift-userfaultfd", path: ".."),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
    ],
    targets: ["lazy-file", "shared-clones", "serve-a-process", "failing-disk"].map { name in
        .executableTarget(
            name: name,
            dependencies: [
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]
        )
    },
    swiftLanguageModes: [.v6]
)
