internal import CUserfaultFD

/// What this kernel, this machine and this user can do with userfaultfd.
///
/// Everything is found by trying, not from version numbers.
public struct KernelSupport: Hashable, Sendable {
    /// One question with its answer.
    public struct Check: Hashable, Sendable {
        /// The question's name, in words joined by hyphens: `user-mode-faults`, `feature-move`.
        public let name: String
        /// What it means to have it.
        public let meaning: String
        /// Whether it is there.
        public let isAvailable: Bool
        /// Why it is not there; `nil` where it is.
        public let reason: String?
        /// What would bring it; `nil` where it is there, or nothing would.
        public let remedy: String?
    }

    /// The kernel's release, as `uname -r` prints it.
    public let kernelRelease: String
    /// The machine's architecture, as `uname -m` prints it.
    public let machine: String
    /// The features that the kernel has; empty where no userfaultfd can be opened.
    public let features: UserfaultFD.Features
    /// The ioctls that the kernel has for descriptors.
    public let ioctls: UserfaultFD.Ioctls
    /// Every question with its answer.
    public let checks: [Check]

    /// Whether the library can be used at all: a userfaultfd can be opened and negotiated.
    public var isUsable: Bool { self["user-mode-faults"]?.isAvailable ?? false }

    /// The check of a name.
    public subscript(name: String) -> Check? {
        checks.first { $0.name == name }
    }

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
        if isAvailable { return "\(name): yes" }
        return "\(name): no" + (reason.map { ", \($0)" } ?? "") + (remedy.map { "; \($0)" } ?? "")
    }
}

extension KernelSupport.Check {
    static func yes(_ name: String, _ meaning: String) -> Self {
        Self(name: name, meaning: meaning, isAvailable: true, reason: nil, remedy: nil)
    }

    static func no(_ name: String, _ meaning: String, reason: String, remedy: String?) -> Self {
        Self(name: name, meaning: meaning, isAvailable: false, reason: reason, remedy: remedy)
    }
}
