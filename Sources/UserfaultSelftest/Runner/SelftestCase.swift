/// One behaviour of userfaultfd, checked by one small function on each memory type where it means something.
package struct SelftestCase: Sendable {
    /// The name, upstream's where upstream tests the same thing.
    package let name: String
    /// One line that says which behaviour is right; a failure prints it as what is broken.
    package let summary: String
    /// Where the case runs; empty for a case that needs no memory, which is one result called by the name alone.
    package let memory: [MemoryType]
    /// What must be there; the first that is not makes the result a skip.
    package let requires: [Requirement]
    /// How long one result may take before its process is killed and it fails.
    package let limit: Duration
    /// The behaviours that the case checks.
    package let covers: [Coverage]
    /// How long a result may take whose case does not say it.
    package static let usualLimit = Duration.seconds(10)

    package let body: @Sendable (CaseContext) throws -> Void

    package init(
        _ name: String,
        on memory: [MemoryType] = [],
        _ summary: String,
        requires: [Requirement] = [],
        limit: Duration = usualLimit,
        covers: [Coverage] = [],
        body: @escaping @Sendable (CaseContext) throws -> Void
    ) {
        self.name = name
        self.summary = summary
        self.memory = memory
        self.requires = requires
        self.limit = limit
        self.covers = covers
        self.body = body
    }
}

/// The memory that a case works on, under upstream's names.
package enum MemoryType: String, CaseIterable, Sendable, Codable {
    /// Private anonymous memory.
    case anon
    /// A memfd, mapped MAP_SHARED.
    case shmem
    /// A memfd, mapped MAP_PRIVATE.
    case shmemPrivate = "shmem-private"
    /// A file on a mounted tmpfs, mapped MAP_SHARED.
    case tmpfs
    /// A file on a mounted tmpfs, mapped MAP_PRIVATE.
    case tmpfsPrivate = "tmpfs-private"
    /// A huge page memfd, mapped MAP_SHARED.
    case hugetlb
    /// A huge page memfd, mapped MAP_PRIVATE.
    case hugetlbPrivate = "hugetlb-private"

    package var isPrivate: Bool {
        switch self {
        case .anon, .shmemPrivate, .tmpfsPrivate, .hugetlbPrivate: true
        case .shmem, .tmpfs, .hugetlb: false
        }
    }

    package var isHugetlb: Bool { self == .hugetlb || self == .hugetlbPrivate }

    var isTmpfs: Bool { self == .tmpfs || self == .tmpfsPrivate }

    /// Whether the pages live in the page cache of a tmpfs, which is what a memfd is too.
    package var isShmem: Bool {
        switch self {
        case .shmem, .shmemPrivate, .tmpfs, .tmpfsPrivate: true
        case .anon, .hugetlb, .hugetlbPrivate: false
        }
    }
}

extension [MemoryType] {
    package static var all: Self { MemoryType.allCases }
    package static var allShmem: Self { all.filter(\.isShmem) }
    package static var allHugetlb: Self { all.filter(\.isHugetlb) }
    /// Where pages can be in the page cache without being mapped, which is where minor faults happen.
    package static var pageCache: Self { allShmem + allHugetlb }
    package static var smallPages: Self { [.anon] + allShmem }
    package static var shared: Self { all.filter { !$0.isPrivate } }
}

/// The cases of one theme, a file of `Cases/`.
package protocol CaseTheme: Sendable {
    static var cases: [SelftestCase] { get }
}
