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

@Suite(.serialized, .timeLimit(.minutes(5)))
struct DirtyTests {
    static let modes: [UserfaultFD.Features] = [.writeProtect, .writeProtectAsync]

    /// Pages that were loaded by the pager, and pages that were there before it came.
    @Test(.requiresPagemapScan, arguments: modes, [false, true])
    func everyWriteIsReportedOnce(mode: UserfaultFD.Features, werePresent: Bool) throws {
        let pages = 64
        let mapping = try Mapping(anonymous: pages * pageBytes, options: werePresent ? .populate : [])
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: ZeroSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        func write(_ numbers: [Int]) {
            let isDone = Toucher.value {
                for page in 0..<pages { _ = range.load(page * pageBytes) }
                for page in numbers { range.store(1, at: page * pageBytes + 5) }
                return true
            }
            #expect(isDone == true)
        }
        write([])
        #expect(try pager.takeWritten(of: region) == [])
        write([1, 2, 3, 40])
        #expect(
            try pager.takeWrittenRanges(of: region) == [pageBytes..<4 * pageBytes, 40 * pageBytes..<41 * pageBytes])
        #expect(try pager.takeWritten(of: region) == [])
        write([2, 63])
        #expect(try pager.takeWritten(of: region) == [2 * pageBytes, 63 * pageBytes])
        try pager.stop(.poison)
    }

    /// A first write to a page that was never there is one too, and what nobody has loaded can still be poisoned.
    @Test(.requiresPagemapScan, arguments: modes)
    func whatIsNotLoadedIsNotReported(mode: UserfaultFD.Features) throws {
        let pages = 16
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: NumberedSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        #expect(try pager.takeWritten(of: region) == [])
        #expect(
            Toucher.value {
                range.store(1, at: 3 * pageBytes)
                return true
            } == true)
        #expect(try pager.takeWritten(of: region) == [3 * pageBytes])
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesPoisoned == UInt64(pages - 1))
    }
}
