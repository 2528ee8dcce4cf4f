import Glibc
package import UserfaultFD

/// What this machine, kernel and user offer, looked up once at the start of a run.
package struct Host: Sendable {
    package let support: KernelSupport
    package let isRoot: Bool
    package let facts: [HostFact]

    package init() {
        support = .probe()
        isRoot = geteuid() == 0
        facts = HostFacts.all()
    }

    package var kernel: String { support.kernelRelease }
    package var machine: String { support.machine }

    /// Why no userfaultfd can be opened at all, and what to do; nil when one can.
    package var unusable: String? {
        // The results' processes are started from it, and nearly every look at the kernel goes through it.
        if access("/proc/self/exe", R_OK) != 0 { return "no /proc is there: mount it (mount -t proc proc /proc)" }
        return lacks(.userModeFaults).map { "no userfaultfd can be opened: \($0)" }
    }

    /// The kernel's names of its features.
    package var featureNames: [String] {
        UserfaultFD.Features.names.filter { support.features.contains($0.feature) }.map(\.name)
    }

    /// Why a check of ``KernelSupport`` fails, with the remedy; nil when it does not.
    func lacks(_ check: KernelSupport.Name) -> String? {
        support[check].flatMap { check in
            check.isAvailable
                ? nil : [check.reason, check.remedy].compactMap(\.self).joined(separator: "; ")
        }
    }

    /// Why not all of `features` can be enabled.
    func lacks(_ features: UserfaultFD.Features) -> Lack? {
        let lacking = UserfaultFD.Features.names.filter { name, _ in
            features.contains(name) && !support.features.contains(name)
        }
        if !lacking.isEmpty { return .kernel("this kernel has no \(lacking.map(\.name).joined(separator: ", "))") }
        return features.contains(.eventFork)
            ? lacks(.forkEvents).map { .host("no EVENT_FORK for this user: \($0)") } : nil
    }
}
