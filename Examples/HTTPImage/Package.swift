// swift-tools-version: 6.3
import PackageDescription

// A package of its own: the other examples need no libnbd.
let package = Package(
    name: "HTTPImage",
    dependencies: [
        .package(name: "swift-userfaultfd", path: "../..", traits: ["NBD"]),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
    ],
    targets: [
        .executableTarget(
            name: "http-image",
            dependencies: [
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultNBD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]
        )
    ],
    swiftLanguageModes: [.v6]
)
