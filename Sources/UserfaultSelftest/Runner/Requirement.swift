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
    /// Write protection of pages that are not mapped, on the memory type of the result: anonymous memory has a feature of
    /// its own for it.
    case unmappedProtection
    /// A descriptor that handles faults of the kernel too, not only those of user code.
    case kernelFaults
    /// `/dev/userfaultfd`.
    case device
    /// `userfaultfd(2)` is answered by the kernel, and not by a filter.
    case systemCall
    /// User id 0 with all capabilities.
    case root
    /// So many descriptors besides those that a process starts with; see ``SelectedResult/usual``.
    case descriptors(Int)
    /// So many threads and children at once besides the first thread.
    case threads(Int)
    /// So many MiB of address space besides what the program itself takes.
    case addressSpace(Int)
    /// So many pages of the result's memory that this user may lock.
    case lockedPages(Int)
    /// So many KiB on the tmpfs, where the result's file lies on one.
    case tmpfsRoom(Int)
    /// Page frame numbers in `/proc/self/pagemap`, `/proc/kpageflags` and `/proc/kpagecount`.
    case pageFrames
    /// So many free huge pages of the default size, where the result's memory is of huge pages; those ask for 32 by
    /// themselves.
    case hugePages(Int)
    /// Some free swap space.
    case swap
    /// Swap space that belongs to the run, which the child may turn off with `context.turnSwapOff()`.
    case ownSwap
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
    /// A hugetlbfs mounted there, which has its own limit.
    case privateHugetlbfs
    /// `/sys/kernel/debug/gup_test`.
    case gupTest
    /// Pages that the kernel takes for broken, and gives back when the result has ended; see
    /// `context.breakPage(_:of:)`.
    case brokenPages
    /// A file that only some kernels have.
    case file(String)
    /// A file that only some kernels have, and that is not mounted read-only.
    case writableFile(String)
    /// No other result at the same time, because the case measures the host and not only itself.
    case alone
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
    /// How many milliseconds it pauses after each hundred pages.
    package static let sharedPageMergingPause = Self(path: "/sys/kernel/mm/ksm/sleep_millisecs")
}

extension SelectedResult {
    /// What every case may use without saying so, and what it says instead where it uses more or less.
    static let usual: [Requirement] = [
        .descriptors(16), .threads(6), .addressSpace(256), .tmpfsRoom(2048), .hugePages(32),
    ]

    /// What the case requires on this memory type, the usual included; what the memory type has no use for is not.
    var requirements: [Requirement] {
        let declared = selftestCase.requires
        let usual = Self.usual.filter { usual in !declared.contains { $0.isSameKind(as: usual) } }
        return (declared + usual).filter { requirement in
            switch requirement {
            case .hugePages: memory.map(\.isHugetlb) ?? declared.contains(requirement)
            case .tmpfsRoom: memory?.isTmpfs == true
            default: true
            }
        }
    }

    /// How many free huge pages it needs; nil if its memory is not of huge pages.
    var hugePages: Int? {
        guard memory?.isHugetlb == true else { return nil }
        for case .hugePages(let count) in requirements { return count }
        return nil
    }
}

extension Requirement {
    /// The features that faults of this kind need on a memory type.
    func faultFeatures(for memory: MemoryType?) -> UserfaultFD.Features {
        guard let memory, memory != .anon else {
            return switch self {
            case .writeProtectFaults: .writeProtect
            case .unmappedProtection: [.writeProtect, .writeProtectUnpopulated]
            default: []
            }
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

    /// Whether it needs a setting to have some value.
    var needsSetting: Bool {
        if case .setting = self { true } else { hugePageSetting != nil }
    }

    /// Whether both ask for some of the same thing.
    func isSameKind(as other: Requirement) -> Bool {
        switch (self, other) {
        case (.descriptors, .descriptors), (.threads, .threads), (.addressSpace, .addressSpace),
            (.tmpfsRoom, .tmpfsRoom), (.hugePages, .hugePages):
            true
        default: false
        }
    }

    /// Whether it may take a change of the host to meet it.
    var changesHost: Bool {
        switch self {
        case .hugePages, .swap, .ownSwap, .memoryGroup, .brokenPages: true
        default: false
        }
    }
}
