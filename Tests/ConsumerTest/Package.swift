// swift-tools-version: 6.3
import PackageDescription

// A package that depends on this one by address, as a user's does: Scripts/check/consumer.sh counts what it resolves.
let traits = Context.environment["USERFAULTFD_TRAITS", default: ""].split(separator: ",").map(String.init)
let package = Package(
    name: "ConsumerTest",
    dependencies: [
        .package(
            url: Context.environment["USERFAULTFD_URL"]!, from: "0.0.1",
            traits: Set(traits.map { .init(name: $0) }))
    ],
    targets: [
        .executableTarget(
            name: "consumer", dependencies: [.product(name: "UserfaultFD", package: "swift-userfaultfd")],
            swiftSettings: [.treatAllWarnings(as: .error)])
    ]
)
