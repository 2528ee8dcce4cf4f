import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct StreamTests {
    /// Readers that go on side by side are each read ahead for.
    @Test
    func sequentialReadersDoNotDisturbEachOther() throws {
        let alone = try faults(readers: 1)
        for readers in [2, 4] {
            let each = try faults(readers: readers) / UInt64(readers)
            #expect(each * 2 <= alone * 3, "\(each) faults for each of \(readers) readers, \(alone) for one")
        }
    }

    /// Sources that answer later are read ahead from as those that answer at once.
    @Test
    func aReaderOfASourceThatAnswersLaterIsReadAheadFor() throws {
        let page = PageSize.base.bytes
        let pages = 4000
        let source = NumberedLaterSource()
        let mapping = try Mapping(anonymous: pages * page)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(source))
        try pager.add(range)
        try pager.start()
        let isRight = Toucher.value {
            (0..<pages).allSatisfy { range.loadWord($0 * page) == NumberedSource.word($0 * page) }
        }
        #expect(isRight == true)
        try pager.stop(.poison)
        // Windows of 4, 8, and so on up to 512.
        #expect(pager.statistics.missingFaults < 40)
        #expect(source.count < 80)
    }

    /// Pages that are touched now and then bring nothing along.
    @Test
    func distantPagesAreNoStream() {
        let window = ReadAheadWindow(maximum: 512)
        for step in 1...100 { #expect(window.next(page: step * 1000) == 0) }
        #expect(window.next(page: 100_001) == 4)
        // A reader is remembered while seven others come by.
        for step in 1...7 { #expect(window.next(page: 200_000 + step * 1000) == 0) }
        #expect(window.next(page: 100_006) == 8)
    }

    /// How many faults it takes that readers read a part of the memory each, a page in turn.
    private func faults(readers: Int) throws -> UInt64 {
        let page = PageSize.base.bytes
        let pages = 1024
        let mapping = try Mapping(anonymous: readers * pages * page)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(service: .inline))
        try pager.add(range)
        try pager.start()
        let isDone = Toucher.value {
            for number in 0..<pages {
                for reader in 0..<readers { _ = range.loadWord((reader * pages + number) * page) }
            }
            return true
        }
        #expect(isDone == true)
        try pager.stop(.poison)
        return pager.statistics.missingFaults
    }
}
