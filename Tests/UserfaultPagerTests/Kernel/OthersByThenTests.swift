import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Memory that is another's by the time a service has something for it.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct OthersByThenTests {
    /// The fault that is tried again has no region any more, and its page is another pager's.
    @Test(arguments: [false, true])
    func aRetryWithoutItsRegionLeavesThePageAlone(zeros: Bool) async {
        await #expect(processExitsWith: .success) { [zeros] in
            let mapping = try Mapping(anonymous: pageBytes)
            let range = mapping.range
            let first = try Pager(
                UserfaultFD(), source: ClosureSource<Unavailable> { _, _ throws(Unavailable) in throw Unavailable() },
                configuration: PagerConfiguration(strays: zeros ? .zeros : .poison))
            let policy = FailurePolicy(retries: 5, backOff: .milliseconds(500))
            let region = try first.add(range, options: RegionOptions(failure: policy))
            try first.start()
            let toucher = Toucher { range.loadWord(0) }
            #expect(wait { first.statistics.retries == 1 })
            try first.remove(region, .leaveZeros)
            #expect(toucher.value() == 0)
            try mapping.advise(.dontNeed)

            let second = try Pager(UserfaultFD(), source: NumberedSource())
            try second.add(range)
            try second.start()
            #expect(wait { first.statistics.queued == 0 && first.statistics.outstanding == 0 })
            #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
            #expect(first.statistics.pagesPoisoned + first.statistics.pagesZeroed == 0)
            try second.stop(.poison)
            try first.stop(.poison)
            extendLifetime(mapping)
        }
    }

    /// A reading that a state keeps takes fewer messages than others: one that is full leaves some that are as old.
    @Test
    func aFullReadingIsNotAllThereWas() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.add(mapping.range)
        let memory = pager.core.memories[0]
        let messages = try Mapping(anonymous: pageBytes)
        for number in 0..<StateFile.batchCapacity { messages.range.store(0x12, at: 32 * number) }
        var batch = EventBatch(storage: UnsafeMutableRawPointer(bitPattern: messages.range.start)!, capacity: 64)
        let isRecovered = batch.recover()
        #expect(isRecovered)
        let moment = MonotonicInstant.now.nanoseconds
        memory.journal = try StateFile()
        var areLate = (0..<2).map { _ in memory.noteReading(of: batch, at: moment) }
        memory.journal = nil
        areLate += (0..<2).map { _ in memory.noteReading(of: batch, at: moment) }
        #expect(areLate == [true, true, true, false])
        try pager.stop(.poison)
        extendLifetime(messages)
    }

    /// A region that was let go of and is not yet forgotten is told nothing of unmapping: the kernel is asked whose memory it is.
    @Test
    func whatWasLetGoOfIsAskedAbout() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(features: .eventUnmap), source: NumberedSource())
        try pager.add(range)
        let memory = pager.core.memories[0]
        let claim = try #require(memory.sharingOrder { _, machine in machine.claim(at: range.start, count: 1) })
        try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.unregister(range) }
        let mayFill = memory.mayFill(claim)
        claim.region.noteLeaving()
        let mayStillFill = memory.mayFill(claim)
        #expect(mayFill && !mayStillFill)
        _ = memory.sharingOrder { _, machine in machine.giveBack(claim) }
        try pager.stop(.poison)
        extendLifetime(mapping)
    }

    /// A source is asked for pages behind a fault, and takes its time: their mapping goes, and another comes in its place.
    @Test
    func pagesBehindAFaultAreLeftAlone() async {
        await #expect(processExitsWith: .success) {
            let pages = 512
            let mapping = try Mapping(anonymous: pages * pageBytes)
            let range = mapping.range
            let gate = Gate()
            let isHeld = Shared(Atomic<Bool>(false))
            let first = try Pager(
                UserfaultFD(),
                source: ClosureSource<Never> { _, room in
                    if room.freeCapacity >= 32 * pageBytes, !isHeld.value.exchange(true, ordering: .relaxed) {
                        gate.pass()
                    }
                    room.append(repeating: 0xAA, count: room.freeCapacity, as: UInt8.self)
                    return .data
                })
            try first.add(range)
            try first.start()
            // The thread goes on to the page behind, and waits there.
            let hasTouched = Shared(Atomic<Bool>(false))
            let toucher = Toucher {
                _ = (0..<pages).first { page in
                    _ = range.loadWord(page * pageBytes)
                    return isHeld.value.load(ordering: .relaxed)
                }
                hasTouched.value.store(true, ordering: .relaxed)
            }
            #expect(gate.waitUntilReached())
            // Later it would find memory that nobody serves yet.
            let isSettled = try wait {
                try hasTouched.value.load(ordering: .relaxed)
                    || first.core.memories[0].withDescriptor { (uffd) throws(UserfaultError) in
                        try uffd.status().pending
                    } == 1
            }
            #expect(isSettled)
            let other = try Mapping(anonymous: pages * pageBytes, placement: .replacing(range.start))
            _ = mapping.release()
            let second = try Pager(UserfaultFD(), source: NumberedSource())
            try second.add(other.range, options: RegionOptions(readAhead: .none))
            try second.start()
            // For less than ten milliseconds a thread that has faulted is taken to be there still.
            let now = MonotonicInstant.now.nanoseconds
            wait { MonotonicInstant.now.nanoseconds - now > 20_000_000 }
            gate.open()
            #expect(wait { first.statistics.outstanding == 0 })
            #expect(toucher.join())
            let wrong = Toucher.value {
                (0..<pages).count { range.loadWord($0 * pageBytes) != NumberedSource.word($0 * pageBytes) }
            }
            #expect(wrong == 0)
            try second.stop(.poison)
            try first.stop(.leaveZeros)
            extendLifetime(other)
        }
    }

    /// More messages wait than one reading takes: those behind are as old, and their pages another pager's by then.
    @Test(arguments: [false, true])
    func messagesBehindAFullBatchAreOldToo(shared: Bool) async {
        await #expect(processExitsWith: .success) { [shared] in
            let pages = 200
            let kept = 8
            let mapping = try Mapping(anonymous: pages * pageBytes)
            let range = mapping.range
            let first = try Pager(
                UserfaultFD(),
                source: ClosureSource<Never> { _, room in
                    room.append(repeating: 0xAA, count: room.freeCapacity, as: UInt8.self)
                    return .data
                }, runtime: shared ? PagerRuntime() : nil)
            try first.add(range, options: RegionOptions(readAhead: .none))
            let touchers = (0..<pages).map { page in Toucher { range.loadWord(page * pageBytes) } }
            let areWaiting = try wait {
                try first.core.memories[0].withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending }
                    == pages
            }
            #expect(areWaiting)
            let rest = range.part(at: kept * pageBytes, count: (pages - kept) * pageBytes)
            let other = try Mapping(anonymous: rest.count, placement: .replacing(rest.start))
            _ = mapping.release()
            let second = try Pager(UserfaultFD(), source: NumberedSource())
            try second.add(rest, options: RegionOptions(readAhead: .none))
            try second.start()
            try first.start()
            #expect(touchers.allSatisfy { $0.join() })
            let wrong = (kept..<pages).count {
                touchers[$0].value() != NumberedSource.word(($0 - kept) * pageBytes)
            }
            #expect(wrong == 0)
            try second.stop(.poison)
            try first.stop(.leaveZeros)
            extendLifetime(other)
        }
    }

    /// A region is removed while a thread serves itself there, twice: what it has touched is plain memory each time.
    @Test
    func aPageThatIsGivenUpTwiceIsNotTheEnd() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let mapping = try Mapping(anonymous: pageBytes)
            let range = mapping.range
            let asked = Shared(Atomic<Int>(0))
            let allowed = Shared(Atomic<Int>(0))
            let pager = try Pager(
                UserfaultFD(features: .sigbus),
                source: ClosureSource<Never>(isSignalSafe: true) { _, _ in
                    let turn = asked.value.add(1, ordering: .relaxed).newValue
                    while allowed.value.load(ordering: .relaxed) < turn {}
                    return .zero
                })
            try pager.start()
            let touched = Shared(Atomic<Int>(0))
            let mayTouch = Shared(Atomic<Int>(0))
            let toucher = Toucher {
                for round in 1...3 {
                    while mayTouch.value.load(ordering: .relaxed) < round {}
                    _ = range.loadWord(0)
                    touched.value.store(round, ordering: .relaxed)
                }
            }
            for round in 1...3 {
                try mapping.advise(.dontNeed)
                let region = try pager.add(range)
                mayTouch.value.store(round, ordering: .relaxed)
                #expect(wait { asked.value.load(ordering: .relaxed) == round })
                try pager.remove(region, .leaveZeros)
                allowed.value.store(round, ordering: .relaxed)
                #expect(wait { touched.value.load(ordering: .relaxed) == round })
            }
            #expect(toucher.join())
            try pager.stop(.leaveZeros)
        }
    }

    /// Whose the memory of one process is can be asked while another's is let go of, however long that takes.
    @Test
    func processesDoNotWaitForEachOther() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.add(range)
        let place = UserfaultFD.holdingPlace(of: 1)
        #expect(UserfaultFD.holdingPlace(of: nil) == 0 && place != 0)
        let memory = pager.core.memories[0]
        var holder: RangeHolder?
        UserfaultFD.excludingQuestions(at: place) {
            holder = Toucher.value {
                memory.withDescriptor { (uffd) -> RangeHolder in uffd.holder(of: range, modes: .missing) }
            }
        }
        #expect(holder == .thisDescriptor)
        try pager.stop(.leaveZeros)
    }

    /// Who asks whose a page is does not register what was just given up.
    @Test
    func memoryThatIsGivenUpIsPlain() async {
        await #expect(processExitsWith: .success) {
            alarm(120)
            let pages = 256
            let mapping = try Mapping(anonymous: pages * pageBytes)
            let range = mapping.range
            // It is asked for every fault, before the other one.
            let first = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            let second = try Pager(UserfaultFD(features: .sigbus), source: ZeroSource())
            try first.start()
            try second.start()
            let isOver = Shared(Atomic<Bool>(false))
            let touchers = (1...3).map { number in
                Toucher {
                    var random = SplitMix(state: UInt64(number))
                    while !isOver.value.load(ordering: .relaxed) { _ = range.loadWord(random.below(pages) * pageBytes) }
                }
            }
            for _ in 0..<200 {
                let before = second.statistics.faults
                let region = try second.add(range, options: RegionOptions(readAhead: .none))
                try mapping.advise(.dontNeed)
                wait { second.statistics.faults > before }
                try second.remove(region, .leaveZeros)
            }
            isOver.value.store(true, ordering: .relaxed)
            for toucher in touchers { #expect(toucher.join()) }
            try second.stop(.leaveZeros)
            try first.stop(.leaveZeros)
        }
    }
}
