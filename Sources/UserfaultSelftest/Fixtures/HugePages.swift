import UserfaultFD

extension Area {
    /// Anonymous memory whose view consists of transparent huge pages, each filled with its pattern; `pageSize` stays
    /// the base page size.
    ///
    /// A skip where the kernel has none to give.
    ///
    /// - Parameter count: How many huge pages.
    package static func transparentHuge(_ context: CaseContext, count: Int) throws -> Area {
        let area = try Area(context, pages: count * hugePageCount, alignment: hugePageBytes)
        try area.view.advise(.hugePage)
        area.fillView()
        guard try area.hugeBytes() == area.range.count else {
            throw CaseSkip("the kernel had no transparent huge page to give", cause: .chance)
        }
        return area
    }

    /// Bytes of a transparent huge page that one page middle directory entry maps.
    package static var hugePageBytes: Int { PageSize.transparentHuge.bytes }
    /// Base pages in it.
    package static var hugePageCount: Int { hugePageBytes / PageSize.base.bytes }

    /// A free address where one transparent huge page can lie.
    package static func freeHugePage() throws -> UInt {
        let reservation = try Mapping(anonymous: 2 * hugePageBytes, protection: .none, options: .noReserve)
        let start = reservation.range.start
        return (start + UInt(hugePageBytes) - 1) & ~UInt(hugePageBytes - 1)
    }

    /// How many bytes of the view are mapped as whole huge pages.
    package func hugeBytes() throws -> Int {
        let account = try MappingAccount(holding: range.start)
        return (account["AnonHugePages"] + account["ShmemPmdMapped"] + account["FilePmdMapped"]) << 10
    }
}

/// Fails unless a range of memory, mapped or not, holds the patterns of so many pages, from a page on.
package func expectPatterns(
    _ pages: Range<Int>, at address: UInt, seed: UInt8 = 0, _ what: String, file: String = #fileID, line: Int = #line
) throws {
    for (offset, page) in pages.enumerated() {
        try Pattern.expect(
            seed: seed, page: page, at: address + UInt(offset * PageSize.base.bytes), count: PageSize.base.bytes, what,
            file: file, line: line)
    }
}
