package import UserfaultFD

/// What a case needs from the kernel, the host or the user; where it is missing, the result is a skip that says so.
package enum Requirement: Hashable, Sendable {
    /// Userfaultfd features, by the kernel's bits.
    case features(UserfaultFD.Features)
    /// Missing faults on the memory type of the result.
    case missingFaults
    /// Minor faults on the memory type of the result.
    case minorFaults
    /// Write-protect faults on the memory type of the result.
    case writeProtectFaults
    /// A descriptor that handles faults of the kernel too, not only those of user code.
    case kernelFaults
    /// `/dev/userfaultfd`.
    case device
    /// User id 0 with all capabilities.
    case root
    /// Page frame numbers in `/proc/self/pagemap`, `/proc/kpageflags` and `/proc/kpagecount`.
    case pageFrames
    /// So many free huge pages of the default size; memory types of huge pages ask for eight by themselves.
    case hugePages(Int)
    /// Some free swap space.
    case swap
    /// Transparent huge pages in anonymous memory, where madvise asks for them.
    case transparentHugePages
    /// Transparent huge pages in shmem, where madvise asks for them.
    case shmemHugePages
    /// A value of a host-wide setting for as long as the result runs.
    case setting(SystemSetting, String)
    /// A memory control group of the result's own; the child joins it with `context.joinMemoryGroup(limit:)`.
    case memoryGroup
    /// A mount namespace of the result's own, for mounts that nobody else sees.
    case privateMounts
    /// `/sys/kernel/debug/gup_test`.
    case gupTest
    /// A file that only some kernels have.
    case file(String)
}

/// A host-wide setting that a run may change and always puts back.
package struct SystemSetting: Hashable, Sendable {
    package let path: String

    package init(path: String) {
        self.path = path
    }

    package static let transparentHugePages = Self(path: "/sys/kernel/mm/transparent_hugepage/enabled")
    package static let shmemHugePages = Self(path: "/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    package static let unprivilegedUserfaultfd = Self(path: "/proc/sys/vm/unprivileged_userfaultfd")
    package static let sharedPageMerging = Self(path: "/sys/kernel/mm/ksm/run")
}
