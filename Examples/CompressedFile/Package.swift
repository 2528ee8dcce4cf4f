// swift-tools-version: 6.3
import PackageDescription

// A package of its own: the other examples need no liblz4.
let package = Package(
    name: "CompressedFile",
    dependencies: [
        .package(name: "swift-userfaultfd", path: "../.."),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
    ],
    targets: [
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .executableTarget(
            name: "compressed-file",
            dependencies: [
                "CLZ4",
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]
        ),
    ],
    swiftLanguageModes: [.v6]
)
