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
    /// So many free huge pages of the default size, where the result's memory is of huge pages; those ask for 32 by
    /// themselves.
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

extension SelectedResult {
    /// What the case requires on this memory type: huge pages on theirs, 32 where it does not say how many.
    var requirements: [Requirement] {
        let isPool = { (requirement: Requirement) in if case .hugePages = requirement { true } else { false } }
        let pool = selftestCase.requires.filter(isPool)
        guard let memory else { return selftestCase.requires }
        let others = selftestCase.requires.filter { !isPool($0) }
        return memory.isHugetlb ? others + (pool.isEmpty ? [.hugePages(32)] : pool) : others
    }
}

extension Requirement {
    /// The features that faults of this kind need on a memory type.
    func faultFeatures(for memory: MemoryType?) -> UserfaultFD.Features {
        guard let memory, memory != .anon else {
            return self == .writeProtectFaults ? .writeProtect : []
        }
        return switch self {
        case .missingFaults: memory.isHugetlb ? .missingHugetlbfs : .missingShmem
        case .minorFaults: memory.isHugetlb ? .minorHugetlbfs : .minorShmem
        default: [.writeProtect, .writeProtectHugetlbfsShmem]
        }
    }

    /// The setting behind transparent huge pages, and the values with which madvise gets some, the mildest first.
    var hugePageSetting: (SystemSetting, sufficient: [String])? {
        switch self {
        case .transparentHugePages: (.transparentHugePages, ["madvise", "always"])
        case .shmemHugePages: (.shmemHugePages, ["advise", "within_size", "always", "force"])
        default: nil
        }
    }

    /// Whether it may take a change of the host to meet it.
    var changesHost: Bool {
        switch self {
        case .hugePages, .swap, .memoryGroup: true
        default: false
        }
    }
}
