extension PagemapScan {
    /// What a page may be.
    public struct Categories: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Its mapping is registered for asynchronous write protection.
        ///
        /// The corresponding C constant is `PAGE_IS_WPALLOWED`.
        public static var writeProtectAllowed: Categories { Categories(rawValue: 1 << 0) }
        /// It was written since it was protected.
        ///
        /// Up to Linux 7.2 also reported of memory that is not registered. The corresponding C constant is
        /// `PAGE_IS_WRITTEN`.
        public static var written: Categories { Categories(rawValue: 1 << 1) }
        /// It is a file's, or shared anonymous memory.
        ///
        /// The corresponding C constant is `PAGE_IS_FILE`.
        public static var file: Categories { Categories(rawValue: 1 << 2) }
        /// It is in memory.
        ///
        /// The corresponding C constant is `PAGE_IS_PRESENT`.
        public static var present: Categories { Categories(rawValue: 1 << 3) }
        /// It is swapped out.
        ///
        /// The corresponding C constant is `PAGE_IS_SWAPPED`.
        public static var swapped: Categories { Categories(rawValue: 1 << 4) }
        /// It is the shared zero page.
        ///
        /// The corresponding C constant is `PAGE_IS_PFNZERO`.
        public static var zeroPage: Categories { Categories(rawValue: 1 << 5) }
        /// It is a part of a huge page that is mapped whole.
        ///
        /// The corresponding C constant is `PAGE_IS_HUGE`.
        public static var huge: Categories { Categories(rawValue: 1 << 6) }
        /// It is soft-dirty.
        ///
        /// The corresponding C constant is `PAGE_IS_SOFT_DIRTY`.
        public static var softDirty: Categories { Categories(rawValue: 1 << 7) }
        /// It is a guard page.
        ///
        /// Available since Linux 6.16. The corresponding C constant is `PAGE_IS_GUARD`.
        public static var guardPage: Categories { Categories(rawValue: 1 << 8) }
        /// It was accessed since it was protected against every access.
        ///
        /// Available since Linux 7.3. The corresponding C constant is `PAGE_IS_ACCESSED`.
        public static var accessed: Categories { Categories(rawValue: 1 << 9) }
    }

    /// Which pages to find, and what to do with them.
    public struct Query: Hashable, Sendable {
        /// A page must be all of these.
        public var all: Categories
        /// A page must be at least one of these, if there are any.
        public var any: Categories
        /// Categories that ``all`` and ``any`` mean the opposite of.
        public var inverted: Categories
        /// The categories that are reported of a page; pages that differ in them make separate regions.
        public var reported: Categories
        /// Protects the pages that are found and were written, in the same step.
        public var writeProtectsMatches: Bool
        /// Fails with `EPERM` at memory that is not registered for asynchronous write protection.
        public var requiresWriteProtectAsync: Bool
        /// The most pages to find, or `nil` for no limit; with 0 nothing is scanned.
        public var pageLimit: Int?

        /// Which pages to find; by default every page.
        public init(
            all: Categories = .init(), any: Categories = .init(), inverted: Categories = .init(),
            reported: Categories = .init(),
            writeProtectsMatches: Bool = false, requiresWriteProtectAsync: Bool = false, pageLimit: Int? = nil
        ) {
            self.all = all
            self.any = any
            self.inverted = inverted
            self.reported = reported
            self.writeProtectsMatches = writeProtectsMatches
            self.requiresWriteProtectAsync = requiresWriteProtectAsync
            self.pageLimit = pageLimit
        }

        /// The pages that were written since they were protected, protected again: what a dirty log wants.
        public static var takeWritten: Query {
            Query(all: .written, reported: .written, writeProtectsMatches: true, requiresWriteProtectAsync: true)
        }
    }
}
