import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Between a pause and its end no page changes.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct PauseTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(2)]

    /// How many faults the kernel knows of, and how many of them were not read.
    private func faults(_ pager: Pager<some PageSource>) throws -> (total: Int, unread: Int) {
        let status = try pager.core.memories[0].withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
        return (status.total, status.pending)
    }

    /// A fault of no region is not forgotten.
    @Test(arguments: services)
    func aStrayInAPauseIsPoisonedAtTheEnd(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .signal(SIGBUS)) { [isInline = isInline as Bool] in
            let mapping = try Mapping(anonymous: pageBytes)
            // It stays, whatever becomes of the process.
            let range = mapping.release()
            let uffd = try UserfaultFD()
            try uffd.register(range, modes: .missing)
            let pager = try Pager(
                uffd, source: NumberedSource(),
                configuration: PagerConfiguration(service: isInline ? .inline : .workers(1), strays: .wait))
            try pager.start()
            try pager.pause()
            let toucher = Toucher { range.loadWord(0) }
            let memory = pager.core.memories[0]
            guard wait(until: { memory.kept.withLock { $0.count } == 1 }) else { exit(2) }
            try pager.stop(.poison)
            exit(toucher.value() == 0 ? 3 : 4)
        }
    }

    /// Nor where the pager stops, and somebody else has the descriptor too.
    @Test(arguments: services)
    func aStrayInAPauseIsZerosAtTheEnd(service: PagerConfiguration.Service) throws {
        // It stays, whatever becomes of the thread.
        let range = try Mapping(anonymous: pageBytes).release()
        let uffd = try UserfaultFD()
        let second = try uffd.duplicate()
        try uffd.register(range, modes: .missing)
        let pager = try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: service, strays: .zeros))
        try pager.start()
        try pager.pause()
        let toucher = Toucher { range.loadWord(0) }
        #expect(
            try wait {
                let now = try faults(pager); return now.total == 1 && now.unread == 0
            })
        try pager.stop(.poison)
        #expect(toucher.value() == 0)
        #expect(pager.statistics.pagesPoisoned == 0)
        extendLifetime(second)
    }

    @Test(arguments: services)
    func aWriteInAPauseGoesOnAtTheEnd(service: PagerConfiguration.Service) throws {
        let range = try Mapping(anonymous: pageBytes, options: .populate).release()
        let uffd = try UserfaultFD(features: .writeProtect)
        let second = try uffd.duplicate()
        try uffd.register(range, modes: .writeProtect)
        try uffd.writeProtect(range, .protect)
        let pager = try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: service, strays: .poison))
        try pager.start()
        try pager.pause()
        let toucher = Toucher { range.store(7, at: 0) }
        #expect(
            try wait {
                let now = try faults(pager); return now.total == 1 && now.unread == 0
            })
        try pager.stop(.poison)
        #expect(toucher.join())
        #expect(range.load(0) == 7)
        extendLifetime(second)
    }

    @Test(arguments: services)
    func faultsWaitForTheEndOfAPause(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: .eventRemove), source: NumberedSource(),
            configuration: PagerConfiguration(service: service))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
        for _ in 0..<3 {
            try pager.pause()
            let before = pager.settledStatistics.bytesFilled
            // Changes are followed meanwhile.
            try mapping.advise(.dontNeed)
            let toucher = Toucher { precondition(range.loadWord(pageBytes) == 0) }
            #expect(
                try wait {
                    let now = try faults(pager); return now.total == 1 && now.unread == 0
                })
            #expect(pager.statistics.bytesFilled == before)
            try pager.resume()
            #expect(toucher.join())
            #expect(pager.settledStatistics.bytesFilled == before + UInt64(pageBytes))
        }
        try pager.stop(.poison)
        #expect(throws: PagerError.notRunning) { try pager.pause() }
    }

    /// What a source brings during a pause fills nothing, and nothing is forgotten.
    @Test(arguments: services)
    func whatComesDuringAPauseIsAskedForAgain(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 256 * pageBytes)
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate), configuration: PagerConfiguration(service: service))
        let region = try pager.add(mapping.range)
        try pager.start()
        let populating = Toucher { try? pager.populate(region, within: .seconds(20)) }
        #expect(gate.waitUntilReached())
        try pager.pause()
        gate.open()
        #expect(wait { pager.statistics.outstanding == 0 })
        #expect(pager.statistics.bytesFilled == 0)
        try pager.resume()
        #expect(populating.join())
        #expect(pager.settledStatistics.pagesCopied == 256)
        try pager.stop(.poison)
        #expect(pager.statistics.pagesPoisoned == 0)
    }

    @Test(arguments: services)
    func aPausedPagerStops(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(service: service))
        try pager.add(range)
        try pager.start()
        try pager.pause()
        let toucher = Toucher { precondition(range.loadWord(3 * pageBytes) == NumberedSource.word(3 * pageBytes)) }
        #expect(try wait { try faults(pager).total == 1 })
        try pager.stop(.populate)
        #expect(toucher.join())
        for page in 0..<64 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
    }

    @Test
    func aPausedPagerPoisonsWhenItStops() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(20)
            let mapping = try Mapping(anonymous: pageBytes)
            let range = mapping.range
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            try pager.add(range)
            try pager.start()
            try pager.pause()
            let toucher = Toucher { _ = range.loadWord(0) }
            wait { (try? PauseTests().faults(pager).total) == 1 }
            try pager.stop(.poison)
            _ = toucher.join()
        }
    }

    /// A child that was forked during a pause waits too.
    @Test(.followsForks)
    func aChildWaitsForTheEndOfAPause() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: NumberedSource(),
            configuration: PagerConfiguration(service: .workers(2)))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.pause()
        let child = Shared(Mutex<Int?>(nil))
        let forking = Toucher {
            let status = inFork { range.loadWord(pageBytes) == NumberedSource.word(pageBytes) ? 0 : 1 }
            child.value.withLock { $0 = status }
        }
        #expect(wait { pager.core.children.contains { !$0.isVacant } })
        #expect(pager.statistics.bytesFilled == 0)
        try pager.resume()
        #expect(forking.join())
        #expect(child.value.withLock(\.self) == 0)
        try pager.stop(.poison)
    }
}
