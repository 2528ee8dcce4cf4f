import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What is left behind when a pager, or a region, ends.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct StoppingTests {
    @Test(arguments: [Ending.populate, .poison])
    func stoppingPassesOverWhatIsNotMappedAnyMore(_ ending: Ending) async {
        let poisons = ending == .poison
        await #expect(processExitsWith: .success) { [poisons = poisons as Bool] in
            let mapping = try Mapping(anonymous: 64 * pageBytes)
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            try pager.add(mapping.range)
            try pager.start()
            let range = mapping.release()
            for hole in [0..<2, 20..<21, 60..<64] {
                try? AddressSpace.unmap(range.part(at: hole.lowerBound * pageBytes, count: hole.count * pageBytes))
            }
            let stopping = Toucher { try? pager.stop(poisons ? .poison : .populate) }
            guard stopping.join() else { fatalError("stop does not end") }
            if !poisons { for page in [2, 19, 21, 59] { precondition(range.loadWord(page * pageBytes) != 0) } }
        }
    }

    /// Even where somebody else keeps the descriptor open.
    @Test(arguments: [UserfaultFD.Features(), [.eventRemove, .eventUnmap, .eventRemap]])
    func afterwardsTheMemoryIsOrdinary(events: UserfaultFD.Features) async {
        let bits = events.rawValue
        await #expect(processExitsWith: .success) { [bits = bits as UInt64] in
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let uffd = try UserfaultFD(
                features: [.writeProtect, .writeProtectUnpopulated, UserfaultFD.Features(rawValue: bits)])
            let kept = try uffd.duplicate()
            let pager = try Pager(uffd, source: NumberedSource())
            try pager.add(mapping.range, options: RegionOptions(writeProtected: true))
            try pager.start()
            try pager.stop(.populate)
            let range = mapping.release()
            let using = Toucher {
                for page in 0..<8 { range.store(1, at: page * pageBytes) }
                try? AddressSpace.advise(.dontNeed, range.part(at: 0, count: pageBytes))
                precondition(range.loadWord(0) == 0)
                try? AddressSpace.unmap(range)
            }
            guard using.join() else { fatalError("the memory is still served, by nobody") }
            _ = try kept.status()
        }
    }

    /// Who is told that all is stopped may end the process, or dismiss a guardian.
    @Test
    func aSecondStopWaitsForTheFirst() throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let gate = Gate()
        let pager = try Pager(UserfaultFD(), source: GatedSource(gate: gate))
        try pager.add(mapping.range)
        try pager.start()
        let first = Toucher { error { () throws(PagerError) in try pager.stop(.populate) } }
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.timedOut(pagesLeft: 8)) { try pager.stop(.populate, within: .milliseconds(20)) }
        gate.open()
        try pager.stop(.populate)
        #expect(pager.statistics.pagesCopied == 8)
        #expect(first.value() == .some(nil))
        #expect(throws: PagerError.notRunning) { try pager.populateAll() }
    }

    /// A pause would never end, and neither would the stop.
    @Test
    func aPagerThatStopsIsNotPaused() throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let gate = Gate()
        let pager = try Pager(UserfaultFD(), source: GatedSource(gate: gate))
        try pager.add(mapping.range)
        try pager.start()
        let stopping = Toucher { error { () throws(PagerError) in try pager.stop(.populate) } }
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.notRunning) { try pager.pause() }
        gate.open()
        #expect(stopping.value() == .some(nil))
    }

    /// It is between two changes seldom, and healthy.
    @Test
    func aProgramThatChangesItsMemoryAllTheTimeIsNotKilled() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 512 * pageBytes)
            let range = mapping.range
            let pager = try Pager(UserfaultFD(features: .eventRemove), source: NumberedSource())
            try pager.add(range)
            try pager.start()
            let isOver = Shared(Atomic<Bool>(false))
            let changing = Toucher {
                let page = range.part(at: 0, count: pageBytes)
                while !isOver.value.load(ordering: .relaxed) { try? AddressSpace.advise(.dontNeed, page) }
            }
            try pager.stop(.poison)
            isOver.value.store(true, ordering: .relaxed)
            guard changing.join() else { exit(2) }
        }
    }

    /// Forks, removals and faults are served until all is loaded.
    @Test(.followsForks, arguments: [1, 64])
    func aStopThatLoadsServesOn(pages: Int) throws {
        let mapping = try Mapping(anonymous: 1024 * pageBytes)
        let range = mapping.range
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(features: [.eventFork, .eventRemove]), source: GatedSource(gate: gate),
            configuration: PagerConfiguration(service: .workers(2)))
        try pager.add(range.part(at: 0, count: pages * pageBytes), options: RegionOptions(readAhead: .none))
        try pager.start()
        let stopping = Toucher { try? pager.stop(.populate) }
        #expect(gate.waitUntilReached())
        // A grandchild too: each reads every page, but those that its parent has dropped.
        let dropped = range.part(at: (pages - 1) * pageBytes, count: pageBytes)
        @Sendable func isRight() -> Bool {
            for page in 0..<pages - 1 where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) {
                return false
            }
            return range.loadWord((pages - 1) * pageBytes) == 0
        }
        let child = Shared(Mutex<Int?>(nil))
        let forking = Toucher {
            try? AddressSpace.advise(.dontNeed, dropped)
            let status = inFork {
                let grandchild = fork()
                if grandchild == 0 { _exit(isRight() ? 0 : 1) }
                var status: CInt = 0
                waitpid(grandchild, &status, 0)
                return status == 0 && isRight() ? 0 : 1
            }
            child.value.withLock { $0 = status }
        }
        let touching = Toucher { precondition(isRight()) }
        #expect(wait { pager.core.children.count { !$0.isVacant } == 2 })
        gate.open()
        #expect(forking.join())
        #expect(touching.join())
        #expect(child.value.withLock(\.self) == 0)
        #expect(stopping.join())
        #expect(pager.statistics.pagesPoisoned == 0)
    }

    /// A program that forks all the time while its pager stops.
    @Test(.followsForks)
    func noForkFallsBetweenLoadingAndTheEnd() throws {
        for _ in 0..<20 {
            let mapping = try Mapping(anonymous: 64 * pageBytes)
            let range = mapping.range
            let pager = try Pager(
                UserfaultFD(features: .eventFork), source: HaltingSource(),
                configuration: PagerConfiguration(service: .workers(2)))
            try pager.add(range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let isOver = Shared(Atomic<Bool>(false))
            let failures = Shared(Atomic<Int>(0))
            let forks = Shared(Atomic<Int>(0))
            let forking = Toucher {
                while !isOver.value.load(ordering: .relaxed) {
                    let status = inFork {
                        for page in 0..<64
                        where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) { return 1 }
                        return 0
                    }
                    if status != 0 { failures.value.add(1, ordering: .relaxed) }
                    forks.value.add(1, ordering: .relaxed)
                }
            }
            #expect(wait { forks.value.load(ordering: .relaxed) > 0 })
            try pager.stop(.populate)
            isOver.value.store(true, ordering: .relaxed)
            #expect(forking.join())
            #expect(failures.value.load(ordering: .relaxed) == 0)
        }
    }

    @Test
    func whileItStopsAPagerTakesNoFurtherRegion() throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        let range = mapping.range
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(),
            source: GatedSource(gate: gate))
        try pager.add(range.part(at: 0, count: pageBytes))
        try pager.start()
        let stopping = Toucher { try? pager.stop(.populate) }
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.notRunning) { try pager.add(range.part(at: pageBytes, count: pageBytes)) }
        gate.open()
        #expect(stopping.join())
    }

    @Test
    func whatMovesWhileThePagerStopsIsLoadedAllTheSame() throws {
        // Lower than the memory that moves there.
        let room = try Mapping(anonymous: 32 * pageBytes)
        let target = room.range.part(at: 0, count: 16 * pageBytes)
        let range = room.range.part(at: 16 * pageBytes, count: 16 * pageBytes)
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(features: [.eventRemove, .eventUnmap, .eventRemap]),
            source: GatedSource(gate: gate))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let stopping = Toucher { try? pager.stop(.populate) }
        #expect(gate.waitUntilReached())
        #expect(try AddressSpace.move(range, to: target.start) == target)
        gate.open()
        #expect(stopping.join())
        for page in 0..<16 { #expect(target.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
    }

    @Test(.fitsAddressSpaceLimit)
    func whereNoThreadCanBeMadeNobodyReadsZeros() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let mapping = try Mapping(anonymous: pageBytes)
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            try pager.add(mapping.range)
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
            var none = rlimit(rlim_cur: 1 << 20, rlim_max: limit.rlim_max)
            setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &none)
            var wasRefused = false
            do throws(PagerError) {
                try pager.start()
            } catch {
                if case .noThread = error { wasRefused = true }
            }
            setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
            guard wasRefused else { exit(1) }
            do throws(PagerError) {
                try pager.start()
                exit(2)
            } catch {
                guard error == .alreadyStarted else { exit(3) }
            }
            let range = mapping.range
            _ = Toucher.value { range.loadWord(0) }
        }
    }

    @Test
    func regionsThatWereUnmappedAreForgotten() throws {
        let pager = try Pager(UserfaultFD(features: .eventUnmap), source: NumberedSource())
        try pager.start()
        for _ in 0..<200 {
            let mapping = try Mapping(anonymous: pageBytes)
            try pager.add(mapping.range)
            try mapping.unmap()
        }
        #expect(pager.core.regionIDs.count < 50)
        try pager.stop(.poison)
    }

    /// The thread that delivers reports does not wait for itself.
    @Test
    func aReportMayStopThePager() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let stopped = Gate()
            let pagers = Shared(Mutex<Pager<CountedSource>?>(nil))
            let mapping = try Mapping(anonymous: pageBytes)
            let pager = try Pager(
                UserfaultFD(), source: CountedSource(refusal: nil),
                configuration: PagerConfiguration(report: { _ in
                    try? pagers.value.withLock(\.self)?.stop(.poison)
                    stopped.open()
                }))
            pagers.value.withLock { $0 = pager }
            try pager.add(mapping.range)
            try pager.start()
            pager.core.note(.ownerGone)
            pager.core.runtime.reports.signal()
            stopped.pass()
            #expect(throws: PagerError.notRunning) { try pager.pause() }
            // It refers to its report, which refers to it.
            pagers.value.withLock { $0 = nil }
        }
    }
}
