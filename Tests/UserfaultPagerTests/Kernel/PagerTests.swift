import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct PagerTests {
    static let waitings: [PagerConfiguration.Waiting] = [.poll, .block, .spin, .adaptive()]

    @Test(arguments: waitings, [1, 3])
    func everyPageHoldsWhatTheSourceSays(waiting: PagerConfiguration.Waiting, handlers: Int) throws {
        let mapping = try Mapping(anonymous: 1024 * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(),
            configuration: PagerConfiguration(waiting: waiting, handlers: handlers))
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let wrong = Toucher.value {
            stride(from: 0, to: range.count, by: pageBytes).filter { range.loadWord($0) != NumberedSource.word($0) }
        }
        #expect(wrong == [])
        try pager.stop(.poison)
        let statistics = pager.statistics
        #expect(statistics.pagesCopied >= 1024)
        #expect(statistics.missingFaults < 1024)
        #expect(statistics.service.count > 0)
    }

    @Test
    func shardsServeOneRegion() throws {
        let mapping = try Mapping(anonymous: 999 * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(handlers: 2, shards: 2))
        try pager.add(mapping.range, offset: 8 * pageBytes)
        try pager.start()
        let range = mapping.range
        let wrong = Toucher.value {
            stride(from: 0, to: range.count, by: pageBytes)
                .filter { range.loadWord($0) != NumberedSource.word($0 + 8 * pageBytes) }
        }
        #expect(wrong == [])
        try pager.stop(.poison)
    }

    @Test
    func writesAreRememberedAndTakenOnce() throws {
        let mapping = try Mapping(anonymous: 32 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: [.writeProtect, .writeProtectUnpopulated]), source: NumberedSource())
        let region = try pager.add(mapping.range, options: RegionOptions(writeProtected: true))
        try pager.start()
        let range = mapping.range
        func write(_ pages: [Int]) {
            #expect(
                Toucher.value {
                    for page in 0..<32 { _ = range.loadWord(page * pageBytes) }
                    for page in pages { range.store(1, at: page * pageBytes + 9) }
                    return true
                } == true)
        }
        write([3, 17])
        #expect(try pager.takeWritten(of: region) == [3 * pageBytes, 17 * pageBytes])
        #expect(try pager.takeWritten(of: region) == [])
        write([17, 31])
        #expect(try pager.takeWritten(of: region) == [17 * pageBytes, 31 * pageBytes])
        try pager.stop(.poison)
    }

    /// Whatever else the program does to its memory at the same time.
    @Test
    func noWriteIsLostWhileTheMemoryChanges() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: [.writeProtect, .writeProtectUnpopulated, .eventRemove]), source: NumberedSource())
        let region = try pager.add(
            mapping.range.part(at: 0, count: 32 * pageBytes), options: RegionOptions(writeProtected: true))
        let other = mapping.range.part(at: 32 * pageBytes, count: 32 * pageBytes)
        try pager.add(other)
        try pager.start()
        let range = mapping.range
        let isOver = Shared(Atomic<Bool>(false))
        let dropping = Toucher {
            while !isOver.value.load(ordering: .relaxed) {
                try? AddressSpace.advise(.dontNeed, other)
                NativeThread.yield()
            }
        }
        let writing = Toucher {
            for page in 0..<32 { range.store(1, at: page * pageBytes) }
            isOver.value.store(true, ordering: .relaxed)
        }
        var taken: Set<Int> = []
        while !isOver.value.load(ordering: .relaxed) { taken.formUnion(try pager.takeWritten(of: region)) }
        #expect(writing.join())
        #expect(dropping.join())
        taken.formUnion(try pager.takeWritten(of: region))
        #expect(taken.count == 32)
        try pager.stop(.poison)
    }

    @Test
    func aWorkingSetIsRecordedAndReplayed() throws {
        let recorded = try workingSet { range in
            for page in [5, 3, 60, 9] { _ = range.loadWord(page * pageBytes) }
        }
        #expect(recorded.offsets == [5, 3, 60, 9].map { UInt64($0 * pageBytes) })
        #expect(WorkingSet(bytes: recorded.bytes) == recorded)
        #expect(WorkingSet(bytes: Array(recorded.bytes.dropLast())) == nil)

        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.replay(recorded)
        let deadline = MonotonicInstant.now.nanoseconds + 20_000_000_000
        while pager.statistics.pagesReadAhead < 4, MonotonicInstant.now.nanoseconds < deadline { NativeThread.yield() }
        let range = mapping.range
        #expect(Toucher.value { range.loadWord(60 * pageBytes) } == NumberedSource.word(60 * pageBytes))
        try pager.stop(.poison)
        #expect(pager.statistics.missingFaults == 0)
    }

    private func workingSet(_ touch: @escaping @Sendable (AddressRange) -> Void) throws -> WorkingSet {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(workingSetCapacity: 100))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        _ = Toucher.value { touch(range) }
        try pager.stop(.poison)
        return pager.recordedWorkingSet
    }

    @Test
    func aChildWithoutAPagerDoesNotReadZeros() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        #expect(inFork { CInt(range.load(0)) } == -Int(SIGSEGV))
        try pager.stop(.populate)
        #expect(inFork { range.loadWord(0) == NumberedSource.word(0) ? 0 : 1 } == 0)
    }
}
