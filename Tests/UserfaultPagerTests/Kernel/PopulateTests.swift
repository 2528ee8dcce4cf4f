import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// How much a source is asked for when pages are loaded ahead.
private final class MeasuringSource: PageSource {
    let bytes = Atomic<Int>(0)

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        bytes.add(pages.freeCapacity, ordering: .relaxed)
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

@Suite(.serialized, .timeLimit(.minutes(5)))
struct PopulateTests {
    /// A mapping in pieces is asked for once, and no more than all of it.
    @Test
    func aPageOfAnotherProtectionCostsNoFurtherLoads() throws {
        let pages = 1024
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: MeasuringSource())
        let region = try pager.add(mapping.range)
        try pager.start()
        for page in [100, 101, 700] {
            let address = UnsafeMutableRawPointer(bitPattern: mapping.page(page).start)
            #expect(mprotect(address, pageBytes, PROT_READ) == 0)
        }
        try pager.populate(region)
        #expect(pager.core.source.bytes.load(ordering: .relaxed) == pages * pageBytes)
        for page in 0..<pages { #expect(mapping.range.loadWord(page * pageBytes) != 0) }
        try pager.stop(.poison)
    }

    @Test
    func whatIsLeftIsCounted() throws {
        let first = try Mapping(anonymous: 64 * pageBytes)
        let second = try Mapping(anonymous: 32 * pageBytes)
        let pager = try Pager(UserfaultFD(features: .eventRemove), source: NumberedSource())
        let region = try pager.add(first.range, options: RegionOptions(readAhead: .none))
        try pager.add(second.range)
        try pager.start()
        #expect(try pager.countUnfilledBytes() == 96 * pageBytes)
        let range = first.range
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
        try first.advise(.dontNeed, range.part(at: 8 * pageBytes, count: 2 * pageBytes))
        // A thread goes on before it is noted that its page is there, or gone.
        #expect(try wait { try pager.countUnfilledBytes() == 93 * pageBytes })
        try pager.populate(region)
        #expect(try pager.countUnfilledBytes() == 32 * pageBytes)
        try pager.stop(.populate)
        #expect(throws: PagerError.notRunning) { try pager.countUnfilledBytes() }
    }

    /// A limit that has passed is no error if nothing is left.
    @Test
    func whatIsThereNeedsNoTime() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.populate(region)
        for _ in 0..<20 { try pager.populate(region, within: .zero) }
        try pager.stop(.populate, within: .zero)
    }

    @Test
    func holesAreNotAskedFor() throws {
        let pages = 256
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: MeasuringSource())
        let region = try pager.add(range)
        try pager.start()
        let hole = range.part(at: 16 * pageBytes, count: 192 * pageBytes)
        #expect(munmap(UnsafeMutableRawPointer(bitPattern: hole.start), hole.count) == 0)
        for _ in 0..<3 { try pager.populate(region) }
        #expect(pager.core.source.bytes.load(ordering: .relaxed) == (pages - 192) * pageBytes)
        try pager.stop(.poison)
    }

    /// A hole is passed over at once, however large it is: when pages are loaded, and when the rest is poisoned.
    @Test(.requiresPagemapScan)
    func aHoleOfATebibyteTakesNoTime() throws {
        let mapping = try Mapping(anonymous: 1 << 40, options: .noReserve)
        let range = mapping.range
        let hole = AddressRange(start: range.start + UInt(16 * pageBytes), end: range.end - UInt(16 * pageBytes))
        let pager = try Pager(UserfaultFD(), source: MeasuringSource())
        let region = try pager.add(range)
        try pager.start()
        try AddressSpace.unmap(hole)
        try pager.populate(region, within: .seconds(20))
        #expect(pager.core.source.bytes.load(ordering: .relaxed) == 32 * pageBytes)
        for page in 0..<16 {
            #expect(range.loadWord(page * pageBytes) != 0)
            #expect(range.loadWord(range.count - (page + 1) * pageBytes) != 0)
        }
        try pager.stop(.poison)
        #expect(pager.statistics.pagesPoisoned == 0)
        // Each part, and not what has come between since.
        try AddressSpace.unmap(range.part(at: 0, count: 16 * pageBytes))
        try AddressSpace.unmap(AddressRange(start: hole.end, end: range.end))
        _ = mapping.release()
    }

    /// Every page that was touched, each once, whatever read-ahead would have brought.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func theWorkingSetIsWhatWasTouched(service: PagerConfiguration.Service) throws {
        let pages = 256
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(),
            configuration: PagerConfiguration(service: service, workingSetCapacity: pages))
        try pager.add(range, options: RegionOptions(readAhead: .adaptive()))
        try pager.start()
        let touched = (0..<pages).filter { $0 % 8 < 5 }
        #expect(Toucher.value { touched.reduce(0) { $0 &+ range.loadWord($1 * pageBytes) } } != nil)
        try mapping.advise(.dontNeed)
        #expect(Toucher.value { touched.reduce(0) { $0 &+ range.loadWord($1 * pageBytes) } } != nil)
        let recorded = pager.recordedWorkingSet.offsets
        #expect(recorded == touched.map { UInt64($0 * pageBytes) })
        try pager.stop(.poison)
    }

    /// What is replayed is loaded by several threads if the source is slow, and no thread stays.
    @Test
    func replayIsParallelAndLeavesNoThread() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let gate = Gate()
        let source = SlowCounted(gate: gate)
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(4)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let offsets = stride(from: 0, to: 64, by: 2).map { UInt64($0 * pageBytes) }
        try pager.replay(WorkingSet(offsets: offsets, pageBytes: UInt32(pageBytes)))
        #expect(wait { source.waiting.load(ordering: .relaxed) == 3 })
        // One worker is kept for whoever waits.
        gate.open()
        #expect(wait { pager.statistics.pagesReadAhead == 32 })
        try pager.stop(.poison)
    }

    @Test
    func aFinishedPrefetchLeavesNoThread() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        for part in 0..<8 {
            try pager.prefetch(region, offset: part * 8 * pageBytes, count: 8 * pageBytes)
            #expect(wait { pager.statistics.pagesReadAhead == UInt64(8 * (part + 1)) })
        }
        #expect(wait { pager.core.runtime.state.withLock { $0.visiting } == 0 })
        #expect(pager.core.runtime.state.withLock { $0.visitors.count } <= 1)
        try pager.stop(.poison)
    }

    /// Loaders that come and go are joined, even while one of them hangs in its source.
    @Test
    func loadersThatGoAreJoinedWhileOneHangs() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let gate = Gate()
        let source = ClosureSource<Never>(isSlow: true) { offset, pages in
            if offset == 0 { gate.pass() }
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .inline))
        let hung = try pager.add(range.part(at: 0, count: pageBytes))
        let others = try pager.add(
            range.part(at: pageBytes, count: 63 * pageBytes), offset: pageBytes,
            options: RegionOptions(readAhead: .none))
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(hung) } }
        #expect(gate.waitUntilReached())
        pager.core.queue.job(1)?.end()
        #expect(populating.value() == .some(.notRunning))
        let runtime = pager.core.runtime
        for page in 0..<16 {
            try pager.prefetch(others, offset: page * pageBytes, count: pageBytes)
            #expect(wait { pager.statistics.pagesReadAhead == UInt64(page + 1) })
            #expect(wait { runtime.state.withLock { $0.visiting } == 1 })
        }
        #expect(runtime.state.withLock { $0.visitors.count } <= runtime.plan.visitors)
        gate.open()
        try pager.stop(.poison)
    }

    /// The faults of others are served while a populate runs on a source that hangs.
    @Test
    func aFaultIsServedWhileAPopulateHangs() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let gate = Gate()
        let source = ClosureSource<Never>(isSlow: true) { offset, pages in
            if offset < 32 * pageBytes { gate.pass() }
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(2)))
        let region = try pager.add(range.part(at: 0, count: 32 * pageBytes))
        try pager.add(range.part(at: 32 * pageBytes, count: 32 * pageBytes), offset: 32 * pageBytes)
        try pager.start()
        #expect(throws: PagerError.timedOut(pagesLeft: 32)) { try pager.populate(region, within: .milliseconds(10)) }
        #expect(Toucher.value { range.loadWord(40 * pageBytes) } == NumberedSource.word(40 * pageBytes))
        gate.open()
        try pager.stop(.poison)
    }

    /// A page whose second attempt finds it in another's hand is not there yet.
    @Test
    func aPageInAnothersHandIsWaitedFor() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let gate = Gate()
        let calls = Shared(Atomic<Int>(0))
        let source = ClosureSource<Unavailable>(isSlow: true) { offset, pages throws(Unavailable) in
            guard calls.value.add(1, ordering: .relaxed).oldValue > 0 else { throw Unavailable() }
            gate.pass()
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(3)))
        let region = try pager.add(
            range, options: RegionOptions(failure: FailurePolicy(retries: 5, backOff: .seconds(60))))
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        let queue = pager.core.queue
        #expect(wait { queue.count == 1 })
        var attempt = try #require(queue.take(where: { $0.pending.job != 0 }))
        let job = try #require(queue.job(attempt.pending.job))
        let toucher = Toucher { range.loadWord(0) }
        #expect(gate.waitUntilReached())
        // As if its time had come.
        attempt.pending.due = 0
        #expect(queue.put(attempt))
        #expect(wait { job.isOver || job.state.withLock { $0.passes > 0 } })
        #expect(!job.isOver)
        gate.open()
        #expect(toucher.value() == NumberedSource.word(0))
        #expect(populating.value() == .some(nil))
        #expect(calls.value.load(ordering: .relaxed) == 2)
        try pager.stop(.poison)
    }

    /// A source that answers for one page at a time is asked again for the others.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aPrefetchGoesOnAfterAShortAnswer(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 200 * pageBytes)
        let source = ClosureSource<Never> { offset, pages in
            pages.append(repeating: NumberedSource.word(offset), count: pageBytes / 8, as: UInt64.self)
            return .data
        }
        let pager = try Pager(
            UserfaultFD(), source: source, configuration: PagerConfiguration(service: service))
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.prefetch(region, count: 150 * pageBytes)
        #expect(wait { pager.statistics.pagesCopied == 150 })
        try pager.stop(.poison)
        #expect(pager.statistics.pagesCopied == 150)
    }
}

/// Counts how many threads wait at a gate.
private final class SlowCounted: PageSource {
    let waiting = Atomic<Int>(0)
    private let gate: Gate
    var isSlow: Bool { true }

    init(gate: Gate) {
        self.gate = gate
    }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        waiting.add(1, ordering: .relaxed)
        gate.pass()
        return NumberedSource().load(offset: offset, into: &pages)
    }
}
