// swift-tools-version: 6.3
import PackageDescription

// A program as a user of the library would write it: Scripts/check/linkage.sh looks at what it is linked with, and
// Scripts/check/allocations.sh at what it allocates.
let package = Package(
    name: "LinkageTest",
    dependencies: [.package(name: "swift-userfaultfd", path: "../..")],
    targets: [
        .executableTarget(
            name: "fault-loop", dependencies: [.product(name: "UserfaultFD", package: "swift-userfaultfd")]),
        .executableTarget(
            name: "pager-loop",
            dependencies: [
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]),
        .executableTarget(
            name: "pager-faults",
            dependencies: [
                .product(name: "UserfaultFD", package: "swift-userfaultfd"),
                .product(name: "UserfaultPager", package: "swift-userfaultfd"),
            ]),
    ]
)
