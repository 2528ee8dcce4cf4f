public import UserfaultFD

/// How a region is served.
public struct RegionOptions: Hashable, Sendable {
    /// The size of the region's pages: the huge page's on hugetlbfs, else the base page's.
    ///
    /// A size that the memory does not have is refused with ``PagerError/badPageSize(_:)``. With
    /// ``Registration/byOwner`` only sizes below the base page's are: of memory that need not be there yet, nothing else
    /// is known.
    public var pageSize: PageSize

    /// How many pages behind a fault may be filled along with it.
    public var readAhead: ReadAhead

    /// What happens to pages that cannot be loaded.
    public var failure: FailurePolicy

    /// Whether pages are filled write-protected.
    ///
    /// The first write to each is then a fault of its own, which the engine resolves and remembers:
    /// ``Pager/takeWritten(of:)``.
    ///
    /// Pages that are there before the region is added are protected too. With `Features.writeProtectUnpopulated` or
    /// `Features.writeProtectAsync`, the page map of the process has to tell which those are (Linux 6.7, a process that
    /// may be traced, and a free descriptor): ``Pager/add(_:offset:options:)`` throws if it cannot.
    public var writeProtected: Bool

    /// What a child of `fork` finds where the pager does not follow forks.
    ///
    /// Only regions of this process know this.
    public var inFork: InFork

    /// Who registers the memory with the userfaultfd.
    public var registration: Registration

    /// How a region is served.
    public init(
        pageSize: PageSize = .base,
        readAhead: ReadAhead = .adaptive(),
        failure: FailurePolicy = FailurePolicy(),
        writeProtected: Bool = false,
        inFork: InFork = .absent,
        registration: Registration = .byPager
    ) {
        self.pageSize = pageSize
        self.readAhead = readAhead
        self.failure = failure
        self.writeProtected = writeProtected
        self.inFork = inFork
        self.registration = registration
    }

    /// Finds what no region can have.
    ///
    /// - Throws: ``PagerError/badPageSize(_:)``, ``PagerError/configuration(_:)``.
    func check() throws(PagerError) {
        guard pageSize >= .base else { throw .badPageSize(pageSize.bytes) }
        guard readAhead.maximumPages >= 0 else {
            throw .configuration("a region's read-ahead is 0 pages or more: \(readAhead.maximumPages)")
        }
        try failure.check()
    }

    /// How many pages behind a fault may be filled along with it.
    public struct ReadAhead: Hashable, Sendable {
        /// The most pages that follow a fault; 0 for none.
        public let maximumPages: Int

        /// A window that doubles as long as faults are sequential, up to a maximum, and shrinks when they are not.
        ///
        /// - Parameter maximumPages: The most pages to fill behind the one that is waited for: 0 or more.
        public static func adaptive(maximumPages: Int = 512) -> ReadAhead {
            ReadAhead(maximumPages: maximumPages)
        }

        /// Only the page that is waited for.
        public static var none: ReadAhead { ReadAhead(maximumPages: 0) }
    }

    /// What a child of `fork` finds.
    public enum InFork: Hashable, Sendable {
        /// Nothing: touching the memory is `SIGSEGV` (`MADV_DONTFORK`, undone when the service ends).
        case absent

        /// The pages that were filled, and **zeros** in place of those that were not.
        case unserved
    }

    /// Who registers the memory with the userfaultfd.
    public enum Registration: Hashable, Sendable {
        /// The pager, when the region is added. The memory must be mapped.
        case byPager

        /// The process whose memory it is, before or after the region is added. The memory need not be mapped yet.
        ///
        /// Nothing that is not registered yet is loaded or poisoned: until then, whoever touches the memory gets what the
        /// process mapped there. When the service ends, the pager unregisters the memory.
        case byOwner
    }
}

extension PageSize {
    /// Whether a page may begin at an offset.
    func holds(_ offset: Int) -> Bool { offset >= 0 && offset & (bytes - 1) == 0 }
}
