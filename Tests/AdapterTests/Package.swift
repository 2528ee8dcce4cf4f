// swift-tools-version: 6.3
import PackageDescription

// The tests of the adapters, which are there only for a package that enables their traits: as this one does.
let package = Package(
    name: "AdapterTests",
    dependencies: [
        .package(name: "swift-userfaultfd", path: "../..", traits: ["Metrics", "Service"]),
        .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
    ],
    targets: [
        .testTarget(
            name: "UserfaultPagerAdapterTests",
            dependencies: [
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                // Not tested here: the documentation is built from this package's modules.
                .product(name: "UserfaultHandoff", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
                .product(name: "UserfaultPagerMetrics", package: "swift-userfaultfd"),
                .product(name: "UserfaultPagerService", package: "swift-userfaultfd"),
                .product(name: "InMemoryLogging", package: "swift-log"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "ServiceLifecycleTestKit", package: "swift-service-lifecycle"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: [
                .enableUpcomingFeature("ExistentialAny"),
                .enableUpcomingFeature("InternalImportsByDefault"),
                .enableUpcomingFeature("MemberImportVisibility"),
                .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
                .treatAllWarnings(as: .error),
            ]
        )
    ],
    swiftLanguageModes: [.v6]
)
