import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Loads that take too long, faults that wait for too long, and who is told.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct WatchdogTests {
    /// A load that has just begun is not taken away in place of one that was old, however they follow each other.
    @Test
    func onlyTheLoadThatIsOldIsTakenAway() throws {
        let region = RegionReference(try RegionRecord(id: 1, count: 2 * pageBytes, options: RegionOptions()))
        let memory = try ServedMemory(UserfaultFD())
        let record = ThreadRecord()
        let watcher = ThreadRecord()
        let mistakes = Shared(Atomic<Int>(0))
        let isOver = Shared(Atomic<Bool>(false))
        let watchdog = Toucher {
            while !isOver.value.load(ordering: .relaxed) {
                guard let load = record.takeLoad(begunBefore: 100, for: watcher) else { continue }
                load.memory.endUse()
                let isOld = load.claim.offset == 0 && load.claim.range.start == pageBytes
                if !isOld { mistakes.value.add(1, ordering: .relaxed) }
            }
        }
        let owner = Toucher {
            let end = Deadline(after: .seconds(3))
            while !end.hasPassed {
                for page in 0..<2 {
                    let range = AddressRange(start: UInt(pageBytes + page * pageBytes), count: pageBytes)
                    let claim = Claim(
                        range: range, states: nil, region: region, offset: page * pageBytes, content: .source,
                        isAwaited: true, changes: 0)
                    record.beginLoad(claim, of: memory, at: page == 0 ? 1 : 1000)
                    if !record.endLoad(), page == 1 { mistakes.value.add(1, ordering: .relaxed) }
                }
            }
            isOver.value.store(true, ordering: .relaxed)
        }
        try #require(owner.join(seconds: 60))
        try #require(watchdog.join())
        #expect(mistakes.value.load(ordering: .relaxed) == 0)
        memory.close()
        unsafe region.destroy()
        unsafe record.destroy()
        unsafe watcher.destroy()
    }

    /// Neither the region nor the descriptor goes away under who has taken a load away from its thread.
    @Test
    func whoTakesALoadAwayHoldsWhatItIsOf() throws {
        let region = RegionReference(try RegionRecord(id: 1, count: pageBytes, options: RegionOptions()))
        let memory = try ServedMemory(UserfaultFD())
        let record = ThreadRecord()
        let watcher = ThreadRecord()
        let claim = Claim(
            range: AddressRange(start: UInt(pageBytes), count: pageBytes), states: region.states, region: region,
            offset: 0,
            content: .source, isAwaited: true, changes: 0)
        record.beginLoad(claim, of: memory, at: 1)
        #expect(record.takeLoad(begunBefore: 1, for: watcher) == nil)
        #expect(record.takeLoad(begunBefore: 2, for: watcher) != nil)
        #expect(record.takeLoad(begunBefore: 2, for: watcher) == nil)
        #expect(!record.endLoad())
        #expect(watcher.isWorking(on: region.bits))
        #expect(!memory.close())
        memory.endUse()
        #expect(memory.close())
        unsafe region.destroy()
        unsafe record.destroy()
        unsafe watcher.destroy()
    }

    /// The limit is the source's: time that a fault spends between two attempts is not the source's.
    @Test
    func aRetryHasTheWholeLimit() async {
        await #expect(processExitsWith: .success) {
            let word = try touchOnePage(
                of: FlakySource(failures: 1),
                configuration: PagerConfiguration(service: .workers(1), sourceTimeout: .seconds(1)),
                options: RegionOptions(
                    readAhead: .none, failure: FailurePolicy(retries: 1, backOff: .milliseconds(1200))))
            #expect(word == NumberedSource.word(0))
        }
    }

    /// A fault that waits for a worker was not brought late by the source: it is reported, and served in the end.
    @Test
    func aFaultThatOnlyWaitsIsReportedAndServed() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            // The page whose load hangs is poisoned; its thread stays where it is.
            signal(SIGBUS) { _ in while true { pause() } }
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let gate = Gate()
            let reports = Reports()
            let source = ClosureSource<Never>(isSlow: true) { offset, pages in
                if offset == 0 { gate.pass() }
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(
                UserfaultFD(), source: source,
                configuration: PagerConfiguration(
                    service: .workers(1), sourceTimeout: .seconds(1), stuckAfter: .milliseconds(200),
                    watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let range = mapping.range
            let hangs = Toucher { _ = range.loadWord(0) }
            try #require(gate.waitUntilReached())
            let waits = Toucher { range.loadWord(pageBytes) }
            #expect(reports.waitFor(.timedOut(address: range.start)))
            #expect(reports.wait { reports in reports.contains { $0.isStuck(at: range.start + UInt(pageBytes)) } })
            gate.open()
            #expect(waits.value() == NumberedSource.word(pageBytes))
            #expect(!reports.all.contains(.timedOut(address: range.start + UInt(pageBytes))))
            try pager.stop(.poison)
            _ = hangs
        }
    }

    /// A handler that hangs has read more faults than the one that it serves: another handler serves them.
    @Test
    func whatIsBehindAHungLoadIsServedByOthers() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let gate = Gate()
        let isFirst = Shared(Atomic<Bool>(true))
        let source = ClosureSource<Never> { offset, pages in
            if isFirst.value.exchange(false, ordering: .relaxed) { gate.pass() }
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(
            UserfaultFD(), source: source,
            configuration: PagerConfiguration(
                service: .inline, handlers: 2, stuckAfter: .milliseconds(20), watchdogInterval: .milliseconds(10)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        let range = mapping.range
        let right = Shared(Atomic<Int>(0))
        let touchers = (0..<4).map { page in
            Toucher {
                guard range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes) else { return }
                right.value.add(1, ordering: .relaxed)
            }
        }
        // All in one reading of the first handler that comes.
        let memory = pager.core.memories[0]
        #expect(
            wait {
                (try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending }) == 4
            })
        try pager.start()
        #expect(wait { right.value.load(ordering: .relaxed) == 3 })
        gate.open()
        for toucher in touchers { #expect(toucher.join()) }
        #expect(right.value.load(ordering: .relaxed) == 4)
        try pager.stop(.poison)
    }

    /// With one handler nobody else can: the kernel holds them, and that is said.
    @Test
    func whatIsBehindTheOnlyHungLoadIsReported() throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        let gate = Gate()
        let reports = Reports()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate),
            configuration: PagerConfiguration(
                service: .inline, stuckAfter: .milliseconds(20), watchdogInterval: .milliseconds(10),
                report: { reports.add($0) }))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        let range = mapping.range
        let touchers = (0..<2).map { page in Toucher { _ = range.loadWord(page * pageBytes) } }
        let memory = pager.core.memories[0]
        #expect(
            wait {
                (try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending }) == 2
            })
        try pager.start()
        #expect(
            reports.wait { reports in
                reports.contains { $0.isStuck(at: range.start) || $0.isStuck(at: range.start + UInt(pageBytes)) }
            })
        #expect(reports.wait { reports in reports.contains { if case .unread = $0 { true } else { false } } })
        gate.open()
        for toucher in touchers { #expect(toucher.join()) }
        try pager.stop(.poison)
    }

    /// Once when the time is over, and again whenever it has doubled.
    @Test
    func aStuckFaultIsReportedAtDoublingIntervals() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let gate = Gate()
        let reports = Reports()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate),
            configuration: PagerConfiguration(
                stuckAfter: .milliseconds(10), watchdogInterval: .milliseconds(1), report: { reports.add($0) }))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        let toucher = Toucher { _ = range.loadWord(0) }
        let times: ([PagerReport]) -> [UInt64] = { reports in
            reports.compactMap { report in
                if case .stuck(range.start, let nanoseconds) = report { nanoseconds } else { nil }
            }
        }
        #expect(reports.wait { reports in times(reports).contains { $0 > 320_000_000 } })
        gate.open()
        #expect(toucher.join())
        try pager.stop(.poison)
        let doublings = times(reports.all).map { $0 / 10_000_000 }.map { 63 - $0.leadingZeroBitCount }
        #expect(Set(doublings).count == doublings.count, "\(doublings)")
    }

    /// Who asks for pages by a call is told of those that came too late.
    @Test
    func aPageThatTimesOutWhilePopulatingIsCounted() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let gate = Gate()
        let reports = Reports()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate),
            configuration: PagerConfiguration(sourceTimeout: .milliseconds(50), report: { reports.add($0) }))
        try pager.add(mapping.range)
        try pager.start()
        let caller = Toucher { error { () throws(PagerError) in try pager.populateAll() } }
        #expect(reports.waitFor(.timedOut(address: mapping.range.start)))
        gate.open()
        #expect(caller.value() == .pagesFailed(1))
        #expect(pager.settledStatistics.failures == 1)
        try pager.stop(.poison)
    }

    /// An interval that ends after the clock does is none: nobody looks, and nobody's processor is kept busy.
    @Test
    func anEndlessIntervalNeverEnds() throws {
        let pager = try Pager(
            UserfaultFD(), source: ZeroSource(),
            configuration: PagerConfiguration(waiting: .poll, watchdogInterval: .seconds(Int64.max)))
        try pager.start()
        var tools = ClockTools()
        for _ in 0..<2 { #expect(pager.core.look(with: &tools) == .max) }
        try pager.stop(.poison)
    }

    /// However many threads have come and gone.
    @Test
    func threadsAreKnownUntilTheyGo() {
        let threads = ThreadSet()
        threads.insert(7)
        for thread in 1000..<10_000 as Range<Int32> {
            threads.insert(thread)
            #expect(threads.contains(thread))
            threads.remove(thread)
        }
        #expect(threads.contains(7))
        #expect(!threads.contains(1000) && !threads.contains(9_999))
        // Which is what a fault has whose thread is not told.
        #expect(!threads.contains(0))
        threads.remove(7)
        #expect(!threads.contains(7))
    }

    @Test
    func reportsBeyondTheRoomAreDropped() {
        let ring = ReportRing(capacity: 2, signals: SharedFutex())
        for count in 1...3 { ring.put(.unread(count)) }
        #expect(ring.takeAll() == [.unread(1), .unread(2)])
        #expect(ring.takeAll() == [])
        ring.put(.forkLost)
        #expect(ring.takeAll() == [.forkLost])
    }
}

extension PagerReport {
    fileprivate func isStuck(at address: UInt) -> Bool {
        if case .stuck(address, _) = self { true } else { false }
    }
}
