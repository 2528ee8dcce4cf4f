import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What waits can be cancelled, and ends in time, whatever a source does.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct PromptEndTests {
    /// Every worker hangs, and a fault waits behind them.
    @Test
    func stoppingDoesNotWaitForASourceThatHangs() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            // Not to be unmapped before the process has ended.
            let range = try Mapping(anonymous: 8 * pageBytes).release()
            let gate = Gate()
            let pager = try Pager(
                UserfaultFD(), source: GatedSource(gate: gate), configuration: PagerConfiguration(service: .workers(2)))
            try pager.add(range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let touchers = (0..<3).map { page in Toucher { _ = range.loadWord(page * pageBytes) } }
            guard wait(until: { pager.statistics.outstanding == 2 && pager.statistics.queued == 1 }) else { exit(3) }
            let stopping = Toucher { try? pager.stop(.poison, within: .milliseconds(100)) }
            // The threads that wait find poison, which ends the process.
            guard stopping.join() else { exit(1) }
            for toucher in touchers { _ = toucher.join(seconds: 5) }
            exit(2)
        }
    }

    @Test
    func aLateAnswerChangesNothing() throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        let range = mapping.range
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate), configuration: PagerConfiguration(service: .workers(2)))
        let region = try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.prefetch(region, count: 2 * pageBytes)
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.timedOut(pagesLeft: 2)) {
            try pager.populate(region, within: .milliseconds(20))
        }
        try pager.remove(region, .poison, within: .zero)
        // Now it is somebody else's.
        try mapping.advise(.dontNeed)
        range.store(9, at: 0)
        gate.open()
        #expect(wait { pager.statistics.outstanding == 0 })
        #expect(range.load(0) == 9)
        #expect(pager.statistics.pagesCopied == 0)
        try pager.stop(.poison)
    }

    @Test
    func stoppingSaysWhatWasNotLoadedInTime() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let gate = Gate()
        let pager = try Pager(UserfaultFD(), source: GatedSource(gate: gate))
        try pager.add(mapping.range)
        try pager.start()
        #expect(throws: PagerError.timedOut(pagesLeft: 4)) { try pager.stop(.populate, within: .milliseconds(20)) }
        gate.open()
    }

    /// Neither stopping, nor another region, waits for a populate.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aPopulateHoldsUpNothingElse(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate), configuration: PagerConfiguration(service: service))
        let region = try pager.add(mapping.range.part(at: 0, count: 32 * pageBytes))
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        #expect(gate.waitUntilReached())
        let rest = mapping.range.part(at: 32 * pageBytes, count: 32 * pageBytes)
        #expect(Toucher.value { (try? pager.add(rest)) != nil } == true)
        let stopping = Toucher { try? pager.stop(.poison, within: .milliseconds(20)) }
        #expect(stopping.join())
        #expect(populating.value() == .notRunning)
        gate.open()
    }

    /// A source that calls its pager: neither is in the other's way.
    @Test
    func aSourceMayAddWhileThePagerPopulatesAndStops() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let pager = Shared(Mutex<Pager<ClosureSource<Never>>?>(nil))
        let gate = Gate()
        let source = ClosureSource<Never> { offset, pages in
            gate.pass()
            let made = pager.value.withLock { $0 }
            _ = try? made?.add(range.part(at: 32 * pageBytes + offset, count: pageBytes))
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let made = try Pager(UserfaultFD(), source: source)
        pager.value.withLock { $0 = made }
        let region = try made.add(range.part(at: 0, count: 32 * pageBytes))
        try made.start()
        let populating = Toucher { try? made.populate(region) }
        #expect(gate.waitUntilReached())
        let stopping = Toucher { try? made.stop(.poison) }
        gate.open()
        #expect(populating.join())
        #expect(stopping.join())
        pager.value.withLock { $0 = nil }
    }

    /// With handlers that sleep in `read(2)`: what is tried again later holds up nobody.
    @Test
    func aPageThatIsTriedAgainHoldsUpNoOther() async {
        await #expect(processExitsWith: .exitCode(7)) {
            // Not to be unmapped before the process has ended.
            let range = try Mapping(anonymous: 16 * pageBytes).release()
            let source = ClosureSource<Unavailable> { offset, pages throws(Unavailable) in
                if offset == 0 { throw Unavailable() }
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(
                UserfaultFD(), source: source, configuration: PagerConfiguration(waiting: .block, service: .inline))
            let patient = FailurePolicy(retries: 100, backOff: .seconds(60))
            try pager.add(range, options: RegionOptions(readAhead: .none, failure: patient))
            try pager.start()
            let first = Toucher { _ = range.loadWord(0) }
            guard wait(until: { pager.statistics.retries == 1 }) else { exit(1) }
            let others = Toucher.value { (1..<16).map { range.loadWord($0 * pageBytes) } }
            guard others == (1..<16).map({ NumberedSource.word($0 * pageBytes) }) else { exit(2) }
            _ = first
            exit(7)
        }
    }

    /// Who is told keeps the pager waiting; time limits hold all the same.
    @Test
    func aReportThatIsNotTakenDoesNotEndTimeLimits() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(60)
            let reported = Gate()
            let source = ClosureSource<Never> { _, _ in
                Gate().pass()
                return .zero
            }
            _ = try touchOnePage(
                of: source,
                configuration: PagerConfiguration(
                    service: .workers(1), sourceTimeout: .milliseconds(100), stuckAfter: .milliseconds(10),
                    watchdogInterval: .milliseconds(10), report: { _ in reported.pass() }))
        }
    }
}
