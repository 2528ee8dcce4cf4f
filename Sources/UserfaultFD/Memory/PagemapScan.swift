internal import CUserfaultFD
internal import SystemPackage

/// Finds pages of a process by what they are: written since they were protected, present, swapped out, huge.
///
/// With ``UserfaultFD/Features/writeProtectAsync`` this is how dirty pages are found, and protected anew in the same
/// step. The corresponding ioctl is `PAGEMAP_SCAN`. Available since Linux 6.7.
public struct PagemapScan: ~Copyable, Sendable {
    private let pagemap: OwnedDescriptor

    /// Opens the page map of a process.
    ///
    /// - Parameter process: The process id, or `nil` for this process.
    /// - Throws: ``UserfaultError``: `EACCES` or `EPERM` for a process that may not be traced, `ENOENT` where there is
    ///   none.
    public init(process: Int32? = nil) throws(UserfaultError) {
        let path = "/proc/\(process.map(String.init) ?? "self")/pagemap"
        let answer = unsafe cuffd_open(path, CUFFD_O_RDONLY | CUFFD_O_CLOEXEC)
        guard answer >= 0 else { throw UserfaultError(.pagemapScan, answer: answer) }
        pagemap = OwnedDescriptor(adopting: answer)
    }

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
        /// Up to Linux 7.2 also told of memory that is not registered. The corresponding C constant is
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
        /// A page must be at least one of these, where there are any.
        public var any: Categories
        /// Categories that ``all`` and ``any`` mean the opposite of.
        public var inverted: Categories
        /// The categories that are reported of a page; pages that differ in them make separate regions.
        public var reported: Categories
        /// Protects the pages that are found and were written, in the same step.
        public var writeProtectsMatches: Bool
        /// Fails with `EPERM` at memory that is not registered for asynchronous write protection.
        public var requiresWriteProtectAsync: Bool
        /// The most pages to find, or `nil` for no limit.
        public var pageLimit: Int?

        /// Which pages to find; by default every page.
        public init(
            all: Categories = [], any: Categories = [], inverted: Categories = [], reported: Categories = [],
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

        /// The pages that were written since they were protected, protected anew: what a dirty log wants.
        public static var takeWritten: Query {
            Query(all: .written, reported: .written, writeProtectsMatches: true, requiresWriteProtectAsync: true)
        }
    }

    /// Neighbouring pages that are alike.
    public struct Region: Hashable, Sendable {
        /// The pages.
        public let range: AddressRange
        /// What they are, of the categories that were to be reported.
        public let categories: Categories
    }

    /// What a scan found.
    public struct Result: Hashable, Sendable {
        /// The regions, in the order of their addresses.
        public let regions: [Region]
        /// Where the scan stopped: the range's end, or where the regions or the pages were enough.
        public let end: UInt
    }

    /// Scans a range of the process.
    ///
    /// - Parameters:
    ///   - range: What to scan; the start page-aligned, the end rounded up.
    ///   - query: Which pages to find.
    ///   - regionLimit: The most regions to report; go on at ``Result/end`` for the rest. With 0 and
    ///     ``Query/writeProtectsMatches`` everything is protected, whatever the other fields of the query say.
    /// - Throws: ``UserfaultError``: `ENOTTY` before Linux 6.7 (``UserfaultError/Reason/unsupported``), `EPERM` as
    ///   ``Query/requiresWriteProtectAsync`` says, `EINVAL` for a category that the kernel lacks or a start that is not
    ///   aligned, `ENOMEM`, `ESRCH`.
    public func scan(
        _ range: AddressRange, for query: Query, regionLimit: Int = 1024
    ) throws(UserfaultError) -> Result {
        precondition(regionLimit >= 0, "the number of regions is not negative")
        var end: UInt = 0
        var answer: CInt = 0
        let found = unsafe [cuffd_page_region](unsafeUninitializedCapacity: regionLimit) { buffer, count in
            var argument = cuffd_pm_scan_arg()
            argument.size = UInt64(MemoryLayout<cuffd_pm_scan_arg>.size)
            if query.writeProtectsMatches { argument.flags |= CUFFD_PM_SCAN_WP_MATCHING }
            if query.requiresWriteProtectAsync { argument.flags |= CUFFD_PM_SCAN_CHECK_WPASYNC }
            argument.start = UInt64(range.start)
            argument.end = UInt64(range.end)
            argument.vec = regionLimit == 0 ? 0 : UInt64(UInt(bitPattern: buffer.baseAddress))
            argument.vec_len = UInt64(regionLimit)
            argument.max_pages = UInt64(query.pageLimit ?? 0)
            argument.category_inverted = query.inverted.rawValue
            argument.category_mask = query.all.rawValue
            argument.category_anyof_mask = query.any.rawValue
            argument.return_mask = query.reported.rawValue
            repeat {
                answer = unsafe cuffd_pagemap_scan(pagemap.rawValue, &argument)
            } while answer == -Errno.interrupted.rawValue
            end = UInt(argument.walk_end)
            count = max(0, Int(answer))
        }
        guard answer >= 0 else { throw UserfaultError(.pagemapScan, answer: answer) }
        let regions = found.map { region in
            Region(
                range: AddressRange(start: UInt(region.start), end: UInt(region.end)),
                categories: Categories(rawValue: region.categories))
        }
        return Result(regions: regions, end: end)
    }
}
