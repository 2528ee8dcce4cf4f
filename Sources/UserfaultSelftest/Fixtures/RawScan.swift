import CUserfaultFD
package import UserfaultFD

/// PAGEMAP_SCAN of this process with any numbers: exactly one call, and all that it answers.
package struct RawScan {
    package var all: PagemapScan.Categories = .written
    package var any: PagemapScan.Categories = []
    package var inverted: PagemapScan.Categories = []
    package var reported: PagemapScan.Categories = .written
    /// Protects what it finds again, and refuses where that is not possible.
    package var takes = false
    /// Room for so many regions; `nil` for no room, at no address.
    package var room: Int? = 1024
    package var pageLimit: UInt64 = 0

    package struct Answer: Equatable {
        /// Regions found, or minus the errno.
        package let count: Int
        package let regions: [AddressRange]
        package let categories: [PagemapScan.Categories]
        package let end: UInt
    }

    package init() {}

    package func scan(_ range: AddressRange) throws -> Answer {
        let pagemap = try OwnedDescriptor(opening: "/proc/self/pagemap")
        var argument = cuffd_pm_scan_arg()
        argument.size = UInt64(MemoryLayout<cuffd_pm_scan_arg>.size)
        argument.flags = takes ? CUFFD_PM_SCAN_WP_MATCHING | CUFFD_PM_SCAN_CHECK_WPASYNC : 0
        argument.start = UInt64(range.start)
        argument.end = UInt64(range.end)
        argument.category_mask = all.rawValue
        argument.category_anyof_mask = any.rawValue
        argument.category_inverted = inverted.rawValue
        argument.return_mask = reported.rawValue
        argument.max_pages = pageLimit
        var regions = [cuffd_page_region](repeating: cuffd_page_region(), count: max(1, room ?? 1))
        let count = regions.withUnsafeMutableBytes { bytes in
            argument.vec = room == nil ? 0 : UInt64(UInt(bitPattern: bytes.baseAddress))
            argument.vec_len = UInt64(room ?? 0)
            return cuffd_pagemap_scan(pagemap.rawValue, &argument)
        }
        let found = regions.prefix(room == nil ? 0 : max(0, Int(count)))
        return Answer(
            count: Int(count),
            regions: found.map { AddressRange(start: UInt($0.start), end: UInt($0.end)) },
            categories: found.map { PagemapScan.Categories(rawValue: $0.categories) }, end: UInt(argument.walk_end))
    }

    /// The same with something changed.
    package func with(_ change: (inout RawScan) -> Void) -> RawScan {
        var copy = self
        change(&copy)
        return copy
    }

    /// What was written since it was protected.
    package static let look = RawScan()
    /// The same, and protects it again.
    package static let take = RawScan().with { $0.takes = true }
}
