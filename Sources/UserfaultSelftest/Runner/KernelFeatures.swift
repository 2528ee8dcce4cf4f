/// The feature bits that UFFDIO_API answers, of kernels up to 7.3. Bits that nobody knows yet are kept.
package struct KernelFeatures: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// The kernel's names, by bit.
    static let names = [
        "PAGEFAULT_FLAG_WP", "EVENT_FORK", "EVENT_REMAP", "EVENT_REMOVE", "MISSING_HUGETLBFS", "MISSING_SHMEM",
        "EVENT_UNMAP", "SIGBUS", "THREAD_ID", "MINOR_HUGETLBFS", "MINOR_SHMEM", "EXACT_ADDRESS", "WP_HUGETLBFS_SHMEM",
        "WP_UNPOPULATED", "POISON", "WP_ASYNC", "MOVE", "RWP", "RWP_ASYNC",
    ]

    package static let pagefaultFlagWP = Self(rawValue: 1 << 0)
    package static let eventFork = Self(rawValue: 1 << 1)
    package static let eventRemap = Self(rawValue: 1 << 2)
    package static let eventRemove = Self(rawValue: 1 << 3)
    package static let missingHugetlbfs = Self(rawValue: 1 << 4)
    package static let missingShmem = Self(rawValue: 1 << 5)
    package static let eventUnmap = Self(rawValue: 1 << 6)
    package static let sigbus = Self(rawValue: 1 << 7)
    package static let threadID = Self(rawValue: 1 << 8)
    package static let minorHugetlbfs = Self(rawValue: 1 << 9)
    package static let minorShmem = Self(rawValue: 1 << 10)
    package static let exactAddress = Self(rawValue: 1 << 11)
    package static let wpHugetlbfsShmem = Self(rawValue: 1 << 12)
    package static let wpUnpopulated = Self(rawValue: 1 << 13)
    package static let poison = Self(rawValue: 1 << 14)
    package static let wpAsync = Self(rawValue: 1 << 15)
    package static let move = Self(rawValue: 1 << 16)
    package static let rwp = Self(rawValue: 1 << 17)
    package static let rwpAsync = Self(rawValue: 1 << 18)

    /// The kernel's names of the bits that are set; a bit without a name is `bit N`.
    package var names: [String] {
        (0..<64).filter { rawValue & 1 << $0 != 0 }.map { $0 < Self.names.count ? Self.names[$0] : "bit \($0)" }
    }
}
