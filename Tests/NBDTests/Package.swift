// swift-tools-version: 6.3
import PackageDescription

// The tests and the benchmark of UserfaultNBD, which is there only for a package that enables its trait: as this one does.
let package = Package(
    name: "NBDTests",
    dependencies: [.package(name: "swift-userfaultfd", path: "../..", traits: ["NBD"])],
    targets: [
        .target(name: "CNBDBaseline", linkerSettings: [.linkedLibrary("nbd")]),
        .executableTarget(
            name: "nbd-bench",
            dependencies: [
                "CNBDBaseline",
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultNBD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]
        ),
        .target(name: "CNBDTestSupport"),
        .testTarget(
            name: "UserfaultNBDTests",
            dependencies: [
                "CNBDTestSupport",
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultNBD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ],
            resources: [.copy("Resources/misbehaving-server.py")],
            swiftSettings: [
                .enableUpcomingFeature("ExistentialAny"),
                .enableUpcomingFeature("InternalImportsByDefault"),
                .enableUpcomingFeature("MemberImportVisibility"),
                .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
                .treatAllWarnings(as: .error),
            ]
        ),
    ],
    swiftLanguageModes: [.v6]
)
