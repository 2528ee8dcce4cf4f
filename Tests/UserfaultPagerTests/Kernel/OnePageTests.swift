import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// However many messages a page gets, it is one piece of work; and nothing is done to a page that is there.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct OnePageTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(1), .workers(4)]

    /// Threads that wait for one page before anybody serves it, so that all their messages are read before it is filled.
    private static func touch(
        _ range: AddressRange, threads: Int, of pager: Pager<CountedSource>
    ) throws -> [Toucher<Void>] {
        let touchers = (0..<threads).map { number in
            Toucher { precondition(range.loadWord(8 * number) == NumberedSource.word(0)) }
        }
        let all = wait {
            let status = try? pager.core.memories[0].withDescriptor { (uffd) throws(UserfaultError) in
                try uffd.status()
            }
            return status?.pending == threads
        }
        #expect(all)
        return touchers
    }

    @Test(arguments: services)
    func manyThreadsAtOnePageAreOneLoad(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: CountedSource(), configuration: PagerConfiguration(service: service))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        let touchers = try Self.touch(mapping.range, threads: 32, of: pager)
        try pager.start()
        for toucher in touchers { #expect(toucher.join()) }
        try pager.stop(.poison)
        #expect(pager.core.source.count == 1)
        #expect(pager.settledStatistics.missingFaults == 1)
    }

    /// A second load would fail, and the page is there.
    @Test(arguments: [FailurePolicy.Ending.poison, .killOwner])
    func aHealthyPageIsNotFailed(ending: FailurePolicy.Ending) async {
        let kills = ending == .killOwner
        await #expect(processExitsWith: .success) { [kills = kills as Bool] in
            let mapping = try Mapping(anonymous: pageBytes)
            let reports = Reports()
            let pager = try Pager(
                UserfaultFD(), source: CountedSource(failsAfter: 1),
                configuration: PagerConfiguration(service: .workers(1), report: { reports.add($0) }))
            try pager.add(
                mapping.range,
                options: RegionOptions(readAhead: .none, failure: kills ? .killOwnerAtOnce : .poisonAtOnce))
            let touchers = try OnePageTests.touch(mapping.range, threads: 5, of: pager)
            try pager.start()
            for toucher in touchers { #expect(toucher.join()) }
            try pager.stop(.poison)
            #expect(reports.all.isEmpty)
            #expect(pager.statistics.failures == 0)
        }
    }

    /// The kernel is asked before a policy is applied: here the page came from elsewhere while its load failed.
    @Test(arguments: [FailurePolicy.Ending.poison, .killOwner])
    func aPageThatSomebodyElseBroughtIsNotFailed(ending: FailurePolicy.Ending) async {
        let kills = ending == .killOwner
        await #expect(processExitsWith: .success) { [kills = kills as Bool] in
            let mapping = try Mapping(anonymous: pageBytes)
            let range = mapping.range
            let gate = Gate()
            let source = ClosureSource<Unavailable> { _, _ throws(Unavailable) in
                gate.pass()
                throw Unavailable()
            }
            let uffd = try UserfaultFD()
            let other = try uffd.duplicate()
            let pager = try Pager(uffd, source: source)
            try pager.add(range, options: RegionOptions(failure: kills ? .killOwnerAtOnce : .poisonAtOnce))
            try pager.start()
            let toucher = Toucher { precondition(range.loadWord(0) == 0) }
            #expect(gate.waitUntilReached())
            try other.zeropage(range)
            gate.open()
            #expect(toucher.join())
            try pager.stop(.poison)
            #expect(pager.statistics.failures == 0)
            #expect(range.loadWord(0) == 0)
        }
    }

    /// Loaded, written, touched twice, and dropped from the mapping: it is in the file, and nothing to poison.
    @Test
    func aPageThatTheFileHasIsNotPoisonedAtTheEnd() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(Memfd(count: pageBytes))
            let range = mapping.range
            let pager = try Pager(UserfaultFD(), source: CountedSource())
            try pager.add(range, options: RegionOptions(readAhead: .none))
            let touchers = try OnePageTests.touch(range, threads: 2, of: pager)
            try pager.start()
            for toucher in touchers { #expect(toucher.join()) }
            range.store(7, at: 1)
            try mapping.advise(.dontNeed)
            try pager.stop(.poison)
            #expect(range.load(1) == 7)
        }
    }

    /// What is dropped without a word is loaded again, however often.
    @Test(arguments: services)
    func aPageThatIsDroppedSilentlyIsLoadedAgain(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: CountedSource(), configuration: PagerConfiguration(service: service))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        for _ in 0..<10 {
            #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
            try mapping.advise(.dontNeed)
        }
        try pager.stop(.poison)
        #expect(pager.core.source.count == 10)
    }

    @Test(arguments: [0, 2])
    func aPageThatIsRemovedWhileItsSourceGivesItUpIsZeros(workers: Int) async {
        await #expect(processExitsWith: .success) { [workers] in
            let mapping = try Mapping(anonymous: pageBytes)
            let gate = Gate()
            let source = ClosureSource<Never> { _, _ in
                gate.pass()
                return .poison
            }
            let pager = try Pager(
                UserfaultFD(features: .eventRemove), source: source,
                configuration: PagerConfiguration(
                    service: workers == 0 ? .inline : .workers(workers), handlers: 2))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let range = mapping.range
            let toucher = Toucher { precondition(range.loadWord(0) == 0) }
            #expect(gate.waitUntilReached())
            let dropper = Toucher {
                try? AddressRangeAdvice.dontNeed(range)
            }
            #expect(dropper.join())
            gate.open()
            #expect(toucher.join())
            try pager.stop(.poison)
            #expect(pager.statistics.pagesPoisoned == 0)
        }
    }

    /// Three attempts at one page are one fault.
    @Test(arguments: services)
    func retriesAreNotFaults(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: FlakySource(failures: 2),
            configuration: PagerConfiguration(service: service, workingSetCapacity: 16))
        try pager.add(
            range, options: RegionOptions(failure: FailurePolicy(retries: 2, backOff: .microseconds(100))))
        try pager.start()
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
        try pager.stop(.poison)
        #expect(pager.settledStatistics.missingFaults == 1)
        #expect(pager.settledStatistics.retries == 2)
        #expect(pager.recordedWorkingSet.offsets == [0])
    }

    @Test(.requiresHugePages(1))
    func manyThreadsAtOneHugePageAreOneLoad() throws {
        let huge = PageSize.twoMiB
        let mapping = try Mapping(anonymous: huge.bytes, hugePages: huge)
        let pager = try Pager(UserfaultFD(), source: CountedSource())
        try pager.add(mapping.range, options: RegionOptions(pageSize: huge, readAhead: .none))
        let touchers = try Self.touch(mapping.range, threads: 6, of: pager)
        try pager.start()
        for toucher in touchers { #expect(toucher.join()) }
        try pager.stop(.poison)
        #expect(pager.core.source.count == 1)
        #expect(pager.statistics.failures == 0)
    }
}

/// Advice about memory that a thread knows by its address alone.
enum AddressRangeAdvice {
    static func dontNeed(_ range: AddressRange) throws { try AddressSpace.advise(.dontNeed, range) }
}
