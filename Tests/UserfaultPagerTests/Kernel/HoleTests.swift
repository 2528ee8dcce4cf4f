import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Has every eighth page, and counts what it is asked for.
private final class SparseSource: PageSource {
    let asked = Mutex<[Int]>([])

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        let number = offset / pageBytes
        for page in number..<number + pages.freeCapacity / pageBytes { asked.withLock { $0.append(page) } }
        return NumberedSource().load(offset: offset, into: &pages)
    }

    func extent(from offset: Int) -> Range<Int>? {
        let page = (offset / pageBytes + 7) / 8 * 8
        // Less than a page: the pages around it are data all the same.
        return page * pageBytes + 16..<page * pageBytes + 24
    }

    static func word(_ page: Int) -> UInt64 { page % 8 == 0 ? NumberedSource.word(page * pageBytes) : 0 }
}

/// Sources that are mostly zeros.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct HoleTests {
    private let pages = 256
    private let expected = (0..<256).map { SparseSource.word($0) }

    private func words(_ range: AddressRange) -> [UInt64]? {
        Toucher.value { (0..<range.count / pageBytes).map { range.loadWord($0 * pageBytes) } }
    }

    @Test(arguments: [RegionOptions.ReadAhead.none, .adaptive()])
    func holesAreZerosAndNotAskedFor(readAhead: RegionOptions.ReadAhead) throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: SparseSource())
        try pager.add(mapping.range, options: RegionOptions(readAhead: readAhead))
        try pager.start()
        #expect(words(mapping.range) == expected)
        let asked = pager.core.source.asked.withLock(\.self)
        #expect(asked.sorted() == (0..<pages).filter { $0 % 8 == 0 })
        try pager.stop(.poison)
        #expect(pager.statistics.pagesPoisoned == 0)
    }

    /// What is populated is data, and the rest is zeros when the service has ended.
    @Test
    func populateLoadsDataOnly() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: SparseSource())
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.populate(region)
        #expect(pager.settledStatistics.pagesCopied == UInt64(pages / 8))
        #expect(pager.statistics.pagesZeroed == 0)
        let reference = try #require(pager.core.registry.withLock { $0.regions[region.id]?.reference })
        #expect(pager.core.countUnfilled(of: reference) == 0)
        try pager.stop(.populate)
        #expect(pager.statistics.pagesPoisoned == 0)
        #expect(words(mapping.range) == expected)
    }

    @Test
    func onlyDataIsPoisoned() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: SparseSource())
        try pager.add(mapping.range)
        try pager.start()
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesPoisoned == UInt64(pages / 8))
        for page in 0..<pages where page % 8 != 0 { #expect(mapping.range.loadWord(page * pageBytes) == 0) }
    }

    /// Through holes in steps of their size.
    @Test
    func prefetchLoadsDataOnly() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: SparseSource())
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.prefetch(region, offset: 3 * pageBytes, count: 100 * pageBytes)
        #expect(wait { pager.statistics.pagesCopied == 12 })
        #expect(pager.core.source.asked.withLock { $0 } == (1...12).map { $0 * 8 })
        try pager.stop(.poison)
    }

    /// A sparse file of 4 GiB with a page for each MiB.
    @Test(.measuresMemory)
    func aSparseFileIsPopulatedFastAndSmall() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let count = 4 << 30
            let step = 1 << 20
            let file = try Memfd(count: count).release()
            for offset in stride(from: 0, to: count, by: step) {
                var word = NumberedSource.word(offset)
                #expect(pwrite(file, &word, 8, off_t(offset)) == 8)
            }
            let mapping = try Mapping(anonymous: count, options: .noReserve)
            try mapping.advise(.noHugePage)
            let range = mapping.range
            let before = Footprint().kibibytes
            let pager = try Pager(UserfaultFD(), source: FileSource(adopting: file, isSlow: false))
            let region = try pager.add(range)
            try pager.start()
            try pager.populate(region)
            #expect(pager.settledStatistics.pagesCopied == UInt64(count / step))
            // 16 MiB are the pages themselves, 8 MiB their states.
            #expect(Footprint().kibibytes - before < 40 << 10)
            try pager.stop(.populate)
            for offset in stride(from: 0, to: count, by: step) {
                #expect(range.loadWord(offset) == NumberedSource.word(offset))
            }
            #expect(range.loadWord(step / 2) == 0 && range.loadWord(count - pageBytes) == 0)
        }
    }

    /// Clients of one file: holes are not made when nobody touches them, and are everybody's when somebody does.
    @Test
    func aSharedFileHasTheHolesOfItsSource() throws {
        let file = try Memfd(count: pages * pageBytes)
        let shared = try SharedPages(file, from: SparseSource())
        let clients = try (0..<2).map { _ in Shared(try Mapping(file)) }
        let pagers = try clients.map { client in
            let pager = try Pager(UserfaultFD(), source: shared.source)
            let region = try pager.add(client.value.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            try pager.populate(region, within: .seconds(20))
            return pager
        }
        let data = (0..<pages).filter { $0 % 8 == 0 }
        #expect(shared.base.asked.withLock { $0 } == data)
        #expect(pagers.map(\.statistics.pagesContinued) == [32, 32])
        let (first, second) = (clients[0].value.range, clients[1].value.range)
        #expect(Toucher.value { first.store(7, at: 3 * pageBytes) } != nil)
        #expect(Toucher.value { second.load(3 * pageBytes) } == 7)
        #expect(shared.base.asked.withLock { $0 } == data + [3])
        for pager in pagers { try pager.stop(.poison) }
        #expect(pagers.map(\.statistics.pagesPoisoned) == [0, 0])
        #expect(second.load(5 * pageBytes) == 0)
    }

    /// A reply of zeros has a length of its own.
    @Test
    func zerosEndWhereTheSourceSays() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let source = ClosureSource<Never> { offset, pages in
            let page = offset / pageBytes
            guard page % 8 != 0 else {
                pages.append(repeating: 1, count: pageBytes, as: UInt8.self)
                return .data
            }
            return .zeros(count: (8 - page % 8) * pageBytes)
        }
        let pager = try Pager(UserfaultFD(), source: source)
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.populate(region, within: .seconds(20))
        let bytes = (0..<pages).map { mapping.range.load($0 * pageBytes) }
        #expect(bytes == (0..<pages).map { $0 % 8 == 0 ? 1 : 0 })
        try pager.stop(.poison)
    }

    @Test
    func theEndMayLeaveZeros() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let first = try pager.add(range.part(at: 0, count: 8 * pageBytes), options: RegionOptions(readAhead: .none))
        try pager.add(
            range.dropFirst(8 * pageBytes), offset: 8 * pageBytes, options: RegionOptions(readAhead: .none))
        try pager.start()
        let touched = [1, 5, 9, 200]
        #expect(Toucher.value { touched.map { range.loadWord($0 * pageBytes) } } != nil)
        try pager.remove(first, .leaveZeros)
        for page in 0..<8 { #expect(range.loadWord(page * pageBytes) == 0 || touched.contains(page)) }
        try pager.stop(.leaveZeros)
        for page in 0..<pages {
            let expected = touched.contains(page) ? NumberedSource.word(page * pageBytes) : 0
            #expect(range.loadWord(page * pageBytes) == expected)
        }
        #expect(pager.statistics.pagesPoisoned == 0)
    }
}
