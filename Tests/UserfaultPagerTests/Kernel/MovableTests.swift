import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct MovableTests {
    private static func serve(_ stock: borrowing Stock, pages: Int) throws -> PagerStatistics {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: stock.source)
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let found = Toucher.value { (0..<pages).map { range.loadWord($0 * pageBytes) } }
        #expect(found == (0..<pages).map { NumberedSource.word($0 * pageBytes) })
        try pager.stop(.poison)
        return pager.statistics
    }

    @Test
    func everyPageThatIsMovedIsTakenAway() throws {
        let stock = try Stock(pages: 64)
        let statistics = try Self.serve(stock, pages: 64)
        #expect(statistics.pagesMoved == 64)
        #expect(statistics.pagesCopied == 0)
        #expect((0..<64).allSatisfy { stock.range.loadWord($0 * pageBytes) == 0 })
    }

    /// Shared memory cannot be moved.
    @Test
    func whatCannotBeMovedIsCopiedAndCountedSo() throws {
        let stock = try Stock(pages: 64, sharing: .shared)
        let statistics = try Self.serve(stock, pages: 64)
        #expect(statistics.pagesMoved == 0)
        #expect(statistics.pagesCopied == 64)
        #expect((0..<64).allSatisfy { stock.range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) })
    }

    @Test
    func aPageThatIsNotThereFails() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(20)
            let stock = try Stock(pages: 16, hole: 5)
            _ = try touchOnePage(of: stock.source, page: 5)
        }
    }

    @Test
    func pagesAroundAHoleAreMoved() async {
        await #expect(processExitsWith: .success) {
            alarm(20)
            let stock = try Stock(pages: 16, hole: 5)
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let pager = try Pager(UserfaultFD(), source: stock.source)
            try pager.add(mapping.range, options: RegionOptions(failure: .poisonAtOnce))
            try pager.start()
            #expect(throws: PagerError.pagesFailed(1)) { try pager.populateAll() }
            let pages = Array(0..<5) + Array(6..<16)
            #expect(pages.allSatisfy { mapping.range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) })
            try pager.stop(.poison)
            #expect(pager.settledStatistics.pagesMoved == 15)
            #expect(pager.settledStatistics.pagesPoisoned == 1)
        }
    }

    /// Without events the engine cannot know that the page was dropped, and asks for it again.
    @Test
    func aPageThatWasTakenAwayBeforeFails() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(20)
            let stock = try Stock(pages: 1)
            let mapping = try Mapping(anonymous: pageBytes)
            let pager = try Pager(UserfaultFD(), source: stock.source)
            try pager.add(mapping.range, options: RegionOptions(failure: .poisonAtOnce))
            try pager.start()
            let range = mapping.range
            guard Toucher.value({ range.loadWord(0) }) == NumberedSource.word(0) else { exit(1) }
            try mapping.advise(.dontNeed)
            _ = Toucher.value { range.loadWord(0) }
        }
    }
}
