internal import CUserfaultFD
internal import SystemPackage

/// Finds pages of a process by what they are: written since they were protected, present, swapped out, huge.
///
/// With ``UserfaultFD/Features/writeProtectAsync`` this is how dirty pages are found, and protected again in the same
/// step. The corresponding ioctl is `PAGEMAP_SCAN`. Available since Linux 6.7.
public struct PagemapScan: ~Copyable, Sendable {
    private let pagemap: OwnedDescriptor

    /// Opens the page map of a process.
    ///
    /// - Parameter process: The process id, or `nil` for this process.
    /// - Throws: ``UserfaultError``: `EACCES` or `EPERM` for a process that may not be traced, `ENOENT` if there is none.
    public init(process: Int32? = nil) throws(UserfaultError) {
        let path = "/proc/\(process.map(String.init) ?? "self")/pagemap"
        pagemap = try OwnedDescriptor(opening: path, for: .pagemapScan)
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
        /// Where the scan stopped: the end of the range, or where the limit of regions or pages was reached.
        ///
        /// The start of the range if the limit of pages is smaller than the huge page that comes next, which can only be
        /// protected whole: scan again with a higher limit.
        public let end: UInt
    }

    /// A scan that failed on its way, with what it had done until then.
    ///
    /// If the query protects, the pages of ``regions`` are protected again: they are not reported a second time.
    public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        /// What was found before the failure, in the order of the addresses.
        public let regions: [Region]
        /// What the kernel answered.
        public let error: UserfaultError

        /// One line: the error, and how many regions were found before it.
        public var description: String {
            regions.isEmpty ? error.description : "\(error.description); after \(regions.count) regions"
        }
    }

    /// Scans a range of the process.
    ///
    /// The kernel finds nothing in a process that has ended, and reports no error: keep a ``ProcessHandle`` of a process
    /// that may end, and look at it after the scan.
    ///
    /// - Parameters:
    ///   - range: What to scan; the start page-aligned, the end rounded up.
    ///   - query: Which pages to find.
    ///   - regionLimit: The most regions to report, or `nil` for no limit; continue at ``Result/end`` for the rest. With 0
    ///     nothing is scanned.
    /// - Throws: ``Failure``: `ENOTTY` before Linux 6.7 (``UserfaultError/Reason/unsupported``), `EPERM` as
    ///   ``Query/requiresWriteProtectAsync`` says, `EINVAL` for a category that the kernel does not have, a start that is
    ///   not aligned, or a limit below 0, `ENOMEM`, `ESRCH`.
    public func scan(
        _ range: AddressRange, for query: Query, regionLimit: Int? = 1024
    ) throws(Failure) -> Result {
        guard regionLimit ?? 0 >= 0, query.pageLimit ?? 0 >= 0 else {
            throw Failure(regions: [], error: UserfaultError(.pagemapScan, errno: .invalidArgument))
        }
        var regions: [Region] = []
        var position = range.start
        var pages = 0
        repeat {
            let room = min(Self.roomForRegions, (regionLimit ?? .max) - regions.count)
            // The kernel takes 0 for no limit: a limit that is used up must not reach it.
            guard room > 0, query.pageLimit.map({ $0 > pages }) ?? true else { break }
            var argument = query.argument
            argument.start = UInt64(position)
            argument.end = UInt64(range.end)
            argument.max_pages = UInt64(query.pageLimit.map { $0 - pages } ?? 0)
            let found: Int
            do throws(UserfaultError) {
                found = try scan(&argument, room: room, appendingTo: &regions)
            } catch {
                throw Failure(regions: regions, error: error)
            }
            // A kernel that reports more than 512 regions in a call answers an end that lies before the last of them.
            let end = max(UInt(argument.walk_end), regions.last?.range.end ?? 0)
            // A huge page that the limit of pages would cut is not protected: the kernel stops before it, for ever.
            guard end > position else { break }
            pages += found
            position = end
        } while position < range.end
        return Result(regions: regions, end: position)
    }

    /// Protects every page of a range against writing, without finding out which were written.
    ///
    /// The range must be registered for asynchronous write protection; other memory in it is skipped.
    ///
    /// - Parameter range: What to protect; the start page-aligned, the end rounded up.
    /// - Throws: ``UserfaultError``, as ``scan(_:for:regionLimit:)``.
    public func writeProtect(_ range: AddressRange) throws(UserfaultError) {
        var argument = Query().argument
        argument.flags = CUFFD_PM_SCAN_WP_MATCHING
        argument.start = UInt64(range.start)
        argument.end = UInt64(range.end)
        _ = try answer(to: .pagemapScan) { unsafe cuffd_pagemap_scan(pagemap.rawValue, &argument) }
    }

    /// Whether the process has a page at an address: in memory, swapped out, or marked.
    ///
    /// What tells a page that is there from a huge page pool that is empty, after
    /// ``UserfaultError/Reason/alreadyMappedOrPoolEmpty``. Reads `/proc/PID/pagemap`. Available since Linux 2.6.25.
    ///
    /// - Throws: ``UserfaultError``: `EINVAL` for an address beyond user space, `ESRCH`, `EIO`.
    public func isPopulated(_ address: UInt) throws(UserfaultError) -> Bool {
        let entry = address / UInt(PageSize.base.bytes) * UInt(MemoryLayout<UInt64>.size)
        guard let offset = Int(exactly: entry) else { throw UserfaultError(.pagemapScan, errno: .invalidArgument) }
        var word: UInt64 = 0
        do throws(UserfaultError) {
            try unsafe withUnsafeMutableBytes(of: &word) { (room) throws(UserfaultError) in
                guard unsafe try pagemap.read(into: room, at: offset) == room.count else {
                    // Nothing to read: beyond the addresses of user space, or of a process that has ended.
                    let isGone = entry < UInt(1) << 47 / UInt(PageSize.base.bytes) * 8
                    throw UserfaultError(.pagemapScan, errno: isGone ? .noSuchProcess : .invalidArgument)
                }
            }
        } catch {
            throw UserfaultError(.pagemapScan, errno: error.errno)
        }
        // Bits 63 and 62: present, and swapped out. Markers of empty pages are shown as swapped out, but not on hugetlbfs.
        return word >> 62 != 0
    }

    /// The first address of a range at which anything is mapped; `nil` where nothing is.
    ///
    /// Takes no memory from the heap, and as long for a large hole as for a small one.
    ///
    /// - Throws: As ``scan(_:for:regionLimit:)``.
    package borrowing func firstMapped(in range: AddressRange) throws(UserfaultError) -> UInt? {
        var found = cuffd_page_region()
        var argument = Query().argument
        argument.start = UInt64(range.start)
        argument.end = UInt64(range.end)
        argument.vec_len = 1
        argument.max_pages = 1
        let count = try unsafe withUnsafeMutablePointer(to: &found) { (room) throws(UserfaultError) in
            argument.vec = UInt64(UInt(bitPattern: room))
            return try answer(to: .pagemapScan) { unsafe cuffd_pagemap_scan(pagemap.rawValue, &argument) }
        }
        return count > 0 ? UInt(found.start) : nil
    }

    /// Fails as a scan would if the kernel does not have `PAGEMAP_SCAN`.
    func probe() throws(UserfaultError) {
        do throws(Failure) {
            _ = try scan(AddressRange(start: 0, count: PageSize.base.bytes), for: Query(all: .present), regionLimit: 1)
        } catch {
            throw error.error
        }
    }

    /// Regions for which one call has room: few enough for a small buffer, many enough to make calls rare.
    private static var roomForRegions: Int { 1024 }

    /// Calls once, and appends what it found, also if it fails.
    ///
    /// - Returns: The number of pages in the regions.
    private func scan(
        _ argument: inout cuffd_pm_scan_arg, room: Int, appendingTo regions: inout [Region]
    ) throws(UserfaultError) -> Int {
        var value: CInt = 0
        // On failure the kernel does not say how many regions it wrote. None of them is empty, so that the first empty one
        // in a cleared buffer ends them.
        var found = [cuffd_page_region](repeating: cuffd_page_region(), count: room)
        unsafe found.withUnsafeMutableBufferPointer { buffer in
            argument.vec = UInt64(UInt(bitPattern: buffer.baseAddress))
            argument.vec_len = UInt64(buffer.count)
            value = unsafe cuffd_pagemap_scan(pagemap.rawValue, &argument)
        }
        let written = value >= 0 ? found.prefix(Int(value)) : found.prefix { $0.end != 0 }
        var bytes = 0
        for region in written {
            let range = AddressRange(start: UInt(region.start), end: UInt(region.end))
            bytes += range.count
            regions.append(Region(range: range, categories: Categories(rawValue: region.categories)))
        }
        // Not repeated after EINTR, which only a fatal signal causes: a second call would not report again what the first
        // one protected.
        _ = try answer(to: .pagemapScan) { value }
        return bytes / PageSize.base.bytes
    }
}

extension PagemapScan.Query {
    /// The query as the kernel takes it, without a range.
    fileprivate var argument: cuffd_pm_scan_arg {
        var argument = cuffd_pm_scan_arg()
        argument.size = UInt64(MemoryLayout<cuffd_pm_scan_arg>.size)
        if writeProtectsMatches { argument.flags |= CUFFD_PM_SCAN_WP_MATCHING }
        if requiresWriteProtectAsync { argument.flags |= CUFFD_PM_SCAN_CHECK_WPASYNC }
        argument.category_inverted = inverted.rawValue
        argument.category_mask = all.rawValue
        argument.category_anyof_mask = any.rawValue
        argument.return_mask = reported.rawValue
        return argument
    }
}
