import Glibc
package import UserfaultFD

/// What this machine, kernel and user offer, looked up once at the start of a run.
package struct Host: Sendable {
    /// The kernel's release, `6.12.9-amd64`.
    package let kernel: String
    /// The architecture, `x86_64`.
    package let machine: String
    /// What the kernel's userfaultfd can do; nil when no userfaultfd can be opened.
    package let features: UserfaultFD.Features?
    /// Why no userfaultfd can be opened.
    package let unusable: String?
    /// Why none can be opened that handles faults of the kernel; nil when one can.
    package let userFaultsOnly: String?
    package let isRoot: Bool

    package init() {
        kernel = ProcFile.line("/proc/sys/kernel/osrelease") ?? "unknown"
        var name = utsname()
        uname(&name)
        machine = withUnsafeBytes(of: &name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        isRoot = geteuid() == 0
        do {
            features = try UserfaultFD().supportedFeatures
            unusable = nil
        } catch {
            features = nil
            unusable = "no userfaultfd can be opened: \(error)"
        }
        do {
            try UserfaultFD(options: .init(faults: .userAndKernelMode)).close()
            userFaultsOnly = nil
        } catch {
            userFaultsOnly = "\(error)"
        }
    }

    /// The kernel's names of its features.
    package var featureNames: [String] {
        features.map(Self.names) ?? []
    }

    static func names(_ features: UserfaultFD.Features) -> [String] {
        UserfaultFD.Features.names.filter { features.contains($0.feature) }.map(\.name)
    }
}
