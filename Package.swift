// swift-tools-version: 6.3
import PackageDescription

let package = Package(
    name: "swift-userfaultfd",
    products: [
        .library(name: "UserfaultFD", targets: ["UserfaultFD"]),
        .library(name: "UserfaultPager", targets: ["UserfaultPager"]),
        .library(name: "UserfaultHandoff", targets: ["UserfaultHandoff"]),
        .library(name: "UserfaultNBD", targets: ["UserfaultNBD"]),
        .library(name: "UserfaultPagerMetrics", targets: ["UserfaultPagerMetrics"]),
        .library(name: "UserfaultPagerService", targets: ["UserfaultPagerService"]),
        .executable(name: "uffd-selftest", targets: ["uffd-selftest"]),
    ],
    traits: [
        .trait(
            name: "Metrics", description: "UserfaultPagerMetrics: a pager's statistics as metrics of swift-metrics."),
        .trait(name: "NBD", description: "UserfaultNBD: pages over NBD. Needs libnbd (Debian: libnbd-dev)."),
        .trait(name: "Service", description: "UserfaultPagerService: a pager as a service of swift-service-lifecycle."),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        // Resolved only for packages that enable a trait which needs them.
        .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .target(name: "CUserfaultFD", cSettings: strictC),
        .target(
            name: "UserfaultFD",
            dependencies: ["CUserfaultFD", .product(name: "SystemPackage", package: "swift-system")]
        ),
        .target(
            name: "UserfaultPager",
            dependencies: ["UserfaultFD", .product(name: "SystemPackage", package: "swift-system")]
        ),
        .testTarget(
            name: "UserfaultPagerTests",
            dependencies: [
                "CTestSupport", "CUserfaultFD", "UserfaultFD", "UserfaultPager",
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        // Only read if the trait is enabled: without it nobody needs libnbd.
        .systemLibrary(name: "CNBD", pkgConfig: "libnbd", providers: [.apt(["libnbd-dev"])]),
        .target(
            name: "UserfaultNBD",
            dependencies: [
                "UserfaultFD", "UserfaultPager",
                .target(name: "CNBD", condition: .when(traits: ["NBD"])),
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        .target(
            name: "UserfaultHandoff",
            dependencies: [
                "UserfaultFD", "UserfaultPager", .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        .testTarget(
            name: "UserfaultHandoffTests",
            dependencies: [
                "UserfaultFD", "UserfaultHandoff", "UserfaultPager",
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        .target(
            name: "UserfaultPagerMetrics",
            dependencies: [
                "UserfaultPager",
                .product(name: "CoreMetrics", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
            ]
        ),
        .target(
            name: "UserfaultPagerService",
            dependencies: [
                "UserfaultFD", "UserfaultPager",
                .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Service"])),
                .product(
                    name: "ServiceLifecycle", package: "swift-service-lifecycle",
                    condition: .when(traits: ["Service"])),
            ]
        ),
        .target(name: "CSelftestSupport", cSettings: strictC),
        .target(
            name: "UserfaultSelftest",
            dependencies: [
                "CSelftestSupport", "UserfaultFD", .product(name: "SystemPackage", package: "swift-system"),
            ],
            resources: [.embedInCode("known-bugs.json")]
        ),
        .executableTarget(
            name: "uffd-selftest",
            dependencies: [
                "CSelftestSupport", "UserfaultFD", "UserfaultSelftest",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
        .testTarget(
            name: "UserfaultSelftestTests",
            dependencies: [
                "UserfaultSelftest", "uffd-selftest", .product(name: "SystemPackage", package: "swift-system"),
            ],
            resources: [
                .copy("Resources/junit.xsd"), .copy("Resources/upstream-results.txt"),
                .copy("Resources/pagemap-results.txt"),
            ]
        ),
        .target(name: "CTestSupport", dependencies: ["CUserfaultFD"], path: "Tests/CTestSupport", cSettings: strictC),
        .testTarget(
            name: "UserfaultFDTests",
            dependencies: [
                "CTestSupport", "CUserfaultFD", "UserfaultFD",
                .product(name: "SystemPackage", package: "swift-system"),
            ]
        ),
    ],
    swiftLanguageModes: [.v6]
)

/// What every C target is compiled with.
var strictC: [CSetting] {
    [
        .treatAllWarnings(as: .error),
        .enableWarning("all"),
        .enableWarning("extra"),
        .enableWarning("strict-prototypes"),
    ]
}

/// The libraries whose every unsafe operation is marked.
let memorySafe: Set<String> = [
    "UserfaultFD", "UserfaultHandoff", "UserfaultNBD", "UserfaultPager", "UserfaultPagerMetrics",
    "UserfaultPagerService",
]

for target in package.targets where [.regular, .test, .executable].contains(target.type) {
    let isC = target.name.hasPrefix("C")
    guard !isC else { continue }
    target.swiftSettings =
        (target.swiftSettings ?? []) + [
            .enableUpcomingFeature("ExistentialAny"),
            .enableUpcomingFeature("InternalImportsByDefault"),
            .enableUpcomingFeature("MemberImportVisibility"),
            .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
            .treatAllWarnings(as: .error),
        ]
    if memorySafe.contains(target.name) {
        target.swiftSettings?.append(.strictMemorySafety())
    }
}
