/// What this kernel, this machine and this user can do with userfaultfd.
///
/// Everything is found by trying, not from version numbers.
public struct KernelSupport: Hashable, Sendable {
    /// One question with its answer.
    public struct Check: Hashable, Sendable {
        /// The question.
        public let name: Name
        /// What it means to have it.
        public let meaning: String
        /// Whether it is there.
        public let isAvailable: Bool
        /// Why it is not there; `nil` if it is.
        public let reason: String?
        /// What would bring it; `nil` if it is there, or nothing would.
        public let remedy: String?
    }

    /// The name of a question: words joined by hyphens, which reports show.
    public struct Name: RawRepresentable, Hashable, Sendable {
        /// The name as reports show it.
        public let rawValue: String

        /// A name as reports show it.
        public init(rawValue: String) {
            self.rawValue = rawValue
        }

        /// Faults of user-mode code are handled: the library can be used.
        public static let userModeFaults = Name(rawValue: "user-mode-faults")
        /// Faults of system calls are handled, through the call or the device.
        public static let kernelModeFaults = Name(rawValue: "kernel-mode-faults")
        /// `userfaultfd(2)` opens a descriptor for kernel-mode faults.
        public static let systemCall = Name(rawValue: "system-call")
        /// `/dev/userfaultfd` opens a descriptor for kernel-mode faults.
        public static let device = Name(rawValue: "device")
        /// A fork's child can be served too.
        public static let forkEvents = Name(rawValue: "fork-events")
        /// Ordinary users may handle kernel-mode faults through `userfaultfd(2)`.
        public static let unprivilegedKernelModeFaults = Name(rawValue: "unprivileged-kernel-mode-faults")
        /// The huge page pool has free pages.
        public static let hugePages = Name(rawValue: "huge-pages")
        /// Anonymous memory can be given transparent huge pages.
        public static let transparentHugePages = Name(rawValue: "transparent-huge-pages")
        /// Pages can be swapped out.
        public static let swap = Name(rawValue: "swap")
        /// `PAGEMAP_SCAN` finds written pages.
        public static let pagemapScan = Name(rawValue: "pagemap-scan")
        /// `/proc/self/pagemap` shows page frame numbers.
        public static let pageFrameNumbers = Name(rawValue: "page-frame-numbers")
        /// The `SIGBUS` of a poisoned page has the code `BUS_MCEERR_AR`.
        public static let memoryFailureHandling = Name(rawValue: "memory-failure-handling")
        /// Minor faults of guest_memfd are handled.
        public static let guestMemfdMinorFaults = Name(rawValue: "guest-memfd-minor-faults")

        /// The kernel offers a feature.
        ///
        /// - Parameter feature: One feature that this library knows.
        public static func feature(_ feature: UserfaultFD.Features) -> Name {
            let name = UserfaultFD.Features.names.first { $0.feature == feature }?.name ?? feature.description
            return Name(rawValue: "feature-" + name.lowercased().split(separator: "_").joined(separator: "-"))
        }
    }

    /// The kernel's release, as `uname -r` prints it.
    public let kernelRelease: String
    /// The machine's architecture, as `uname -m` prints it.
    public let machine: String
    /// The features that the kernel has; empty if no userfaultfd can be opened.
    public let features: UserfaultFD.Features
    /// The ioctls that the kernel has for descriptors.
    public let ioctls: UserfaultFD.Ioctls
    /// Every question with its answer.
    public let checks: [Check]

    /// Whether the library can be used at all: a userfaultfd can be opened and negotiated.
    public var isUsable: Bool { has(.userModeFaults) }

    /// The check of a name.
    public subscript(name: Name) -> Check? {
        checks.first { $0.name == name }
    }

    /// Whether a question was answered with yes.
    public func has(_ name: Name) -> Bool { self[name]?.isAvailable ?? false }

    /// Looks at this kernel, this machine and this user; changes nothing.
    public static func probe() -> KernelSupport {
        var checks: [Check] = []
        let opening = OpeningProbe()
        checks += opening.checks
        checks += UserfaultFD.Features.names.map { feature, name in
            FeatureProbe.check(feature, name: name, features: opening.features, isUsable: opening.isUsable)
        }
        checks += HostProbe.checks()
        return KernelSupport(
            kernelRelease: KernelRelease.current.release, machine: KernelRelease.current.machine,
            features: opening.features, ioctls: opening.ioctls, checks: checks)
    }
}

extension KernelSupport.Check: CustomStringConvertible {
    /// One line: the name, yes or no, the reason and the remedy.
    public var description: String {
        if isAvailable { return "\(name.rawValue): yes" }
        return "\(name.rawValue): no" + (reason.map { ", \($0)" } ?? "") + (remedy.map { "; \($0)" } ?? "")
    }
}

extension KernelSupport.Check {
    static func yes(_ name: KernelSupport.Name, _ meaning: String) -> Self {
        Self(name: name, meaning: meaning, isAvailable: true, reason: nil, remedy: nil)
    }

    static func no(_ name: KernelSupport.Name, _ meaning: String, reason: String, remedy: String?) -> Self {
        Self(name: name, meaning: meaning, isAvailable: false, reason: reason, remedy: remedy)
    }
}
