import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

extension Trait where Self == ConditionTrait {
    /// `PAGEMAP_SCAN`.
    static var requiresPagemapScan: Self {
        .enabled("the kernel cannot tell written pages (Linux 6.7 can)") {
            (try? UserfaultFD().supportedFeatures.contains(.writeProtectAsync)) ?? false
                && (try? PagemapScan().scan(
                    AddressRange(start: 0, count: PageSize.base.bytes), for: PagemapScan.Query(all: .present))) != nil
        }
    }
}

@Suite(.serialized, .timeLimit(.minutes(1)))
struct DirtyTests {
    static let page = PageSize.base.bytes
    static let modes: [UserfaultFD.Features] = [.writeProtect, .writeProtectAsync]

    /// Pages that were loaded by the pager, and pages that were there before it came.
    @Test(.requiresPagemapScan, arguments: modes, [false, true])
    func everyWriteIsReportedOnce(mode: UserfaultFD.Features, werePresent: Bool) throws {
        let pages = 64
        let mapping = try Mapping(anonymous: pages * Self.page, options: werePresent ? .populate : [])
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: ZeroSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        func write(_ numbers: [Int]) {
            let isDone = Toucher.value {
                for page in 0..<pages { _ = range.load(page * Self.page) }
                for page in numbers { range.store(1, at: page * Self.page + 5) }
                return true
            }
            #expect(isDone == true)
        }
        write([])
        #expect(try pager.takeWritten(of: region) == [])
        write([1, 2, 3, 40])
        #expect(
            try pager.takeWrittenRanges(of: region) == [Self.page..<4 * Self.page, 40 * Self.page..<41 * Self.page])
        #expect(try pager.takeWritten(of: region) == [])
        write([2, 63])
        #expect(try pager.takeWritten(of: region) == [2 * Self.page, 63 * Self.page])
        try pager.stop(.poison)
    }

    /// A first write to a page that was never there is one too, and what nobody has loaded can still be poisoned.
    @Test(.requiresPagemapScan, arguments: modes)
    func whatIsNotLoadedIsNotReported(mode: UserfaultFD.Features) throws {
        let pages = 16
        let mapping = try Mapping(anonymous: pages * Self.page)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: ZeroSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        #expect(try pager.takeWritten(of: region) == [])
        #expect(
            Toucher.value {
                range.store(1, at: 3 * Self.page)
                return true
            } == true)
        #expect(try pager.takeWritten(of: region) == [3 * Self.page])
        try pager.stop(.poison)
        #expect(pager.statistics.pagesPoisoned == UInt64(pages - 1))
    }
}
