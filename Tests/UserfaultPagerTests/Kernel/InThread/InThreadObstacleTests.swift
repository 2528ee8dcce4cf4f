import CTestSupport
import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What comes between a fault and its end: drops, pauses, ends, cancellations, files that are cut.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadObstacleTests {
    /// Whether a page is protected is another question than whether it was written.
    @Test(arguments: [false, true])
    func aProtectedPageThatWasDroppedIsWritten(isWrittenBefore: Bool) async {
        await #expect(processExitsWith: .success) { [isWrittenBefore = isWrittenBefore as Bool] in
            let memory = try InThread(
                NumberedSource(), features: .writeProtect, options: RegionOptions(writeProtected: true))
            let range = memory.range
            for _ in 0..<3 {
                #expect(memory.wrongPages == 0)
                if isWrittenBefore { range.store(1, at: 3 * pageBytes) }
                try memory.mapping.advise(.dontNeed)
                range.store(7, at: 3 * pageBytes)
                #expect(range.load(3 * pageBytes) == 7)
                #expect(try memory.pager.takeWritten(of: memory.region).contains(3 * pageBytes))
                try memory.mapping.advise(.dontNeed)
            }
        }
    }

    @Test(arguments: [false, true])
    func aPauseEndsWithTheService(leavesZeros: Bool) async {
        await #expect(processExitsWith: .success) { [leavesZeros = leavesZeros as Bool] in
            LastSignal.noteFaults()
            for _ in 0..<10 {
                let memory = try InThread(NumberedSource())
                let range = memory.range
                try memory.pager.pause()
                let isThere = Shared(Atomic<Bool>(false))
                let toucher = Toucher {
                    isThere.value.store(true, ordering: .relaxed)
                    _ = range.loadWord(0)
                }
                wait { isThere.value.load(ordering: .relaxed) }
                for _ in 0..<100 { NativeThread.yield() }
                try memory.pager.stop(leavesZeros ? .leaveZeros : .poison)
                #expect(toucher.join())
            }
        }
    }

    /// A thread that is cancelled where it faults leaves nothing behind that others wait for.
    @Test(.cancelsThreads)
    func aThreadIsCancelledAfterItsFault() async {
        await #expect(processExitsWith: .success) {
            let gate = Gate()
            let memory = try InThread(GatedSource(gate: gate), options: RegionOptions(readAhead: .none))
            Cancelled.range = memory.range
            var thread = pthread_t()
            pthread_create(
                &thread, nil,
                { _ in
                    _ = Cancelled.range.loadWord(0)
                    while true { pause() }
                }, nil)
            #expect(gate.waitUntilReached())
            pthread_cancel(thread)
            gate.open()
            pthread_join(thread, nil)
            #expect(memory.wrongPages == 0)
        }
    }

    /// Nor does one that fetches pages.
    @Test(.cancelsThreads)
    func aThreadThatFetchesIsCancelledAfterwards() async {
        await #expect(processExitsWith: .success) {
            let hanging = HangingSource()
            let (entered, isOver) = (hanging.entered, hanging.isOver)
            let memory = try InThread(hanging, options: RegionOptions(readAhead: .none))
            alarm(20)
            Cancelled.range = memory.range
            Cancelled.pager = memory.pager
            var thread = pthread_t()
            pthread_create(
                &thread, nil,
                { _ in
                    try? Cancelled.pager?.withPagesPresent(Cancelled.range.part(at: 0, count: pageBytes)) {}
                    while true { pause() }
                }, nil)
            guard wait(until: { entered.value.load(ordering: .acquiring) == 1 }) else { exit(2) }
            pthread_cancel(thread)
            // It sleeps in its source, which is where it would end.
            let other = Toucher { Cancelled.range.loadWord(pageBytes) }
            guard wait(until: { entered.value.load(ordering: .acquiring) == 2 }) else { exit(3) }
            isOver.value.store(true, ordering: .releasing)
            pthread_join(thread, nil)
            guard other.value() == NumberedSource.word(pageBytes), memory.wrongPages == 0 else { exit(4) }
        }
    }

    /// One that can be cancelled anywhere has its page first: the signal for that comes while the source works.
    @Test(.cancelsThreads)
    func aThreadIsCancelledInItsSource() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(CancellingSource(), options: RegionOptions(readAhead: .none))
            Cancelled.range = memory.range
            var thread = pthread_t()
            // The first one that is cancelled has the signal's handler set.
            pthread_create(&thread, nil, { _ in while true { pause() } }, nil)
            pthread_cancel(thread)
            pthread_join(thread, nil)
            pthread_create(
                &thread, nil,
                { _ in
                    pthread_setcanceltype(CInt(PTHREAD_CANCEL_ASYNCHRONOUS), nil)
                    _ = Cancelled.range.loadWord(0)
                    while true { pause() }
                }, nil)
            pthread_join(thread, nil)
            guard Toucher.value({ Cancelled.range.loadWord(0) }) == NumberedSource.word(0) else { exit(2) }
        }
    }

    /// Numbered pages; the thread that asks for the first one is told to end meanwhile, as `pthread_cancel` does.
    private struct CancellingSource: PageSource {
        var isSignalSafe: Bool { true }

        func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
            if offset == 0 { _ = cts_cancel_self() }
            return NumberedSource().load(offset: offset, into: &pages)
        }
    }

    enum Cancelled {
        nonisolated(unsafe) static var pager: Pager<HangingSource>?
        nonisolated(unsafe) static var range = AddressRange(start: 0, count: 0)
    }

    /// Past the end of a file the kernel raises a signal of its own: it is the program's.
    @Test
    func aFileThatWasCutIsTheProgramsToHandle() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let file = try Memfd(count: 16 * pageBytes)
            let range = try Mapping(file).release()
            let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            try pager.add(range, options: RegionOptions(readAhead: .none, failure: .poisonAtOnce))
            try pager.start()
            #expect(range.loadWord(0) == NumberedSource.word(0))
            try file.resize(to: 4 * pageBytes)
            _ = range.loadWord(8 * pageBytes)
            #expect(LastSignal.count == 1 && LastSignal.address == range.start + UInt(8 * pageBytes))
            try pager.stop(.poison)
        }
    }

    /// A handler that is to run once is not called for ever.
    @Test
    func aHandlerRunsOnce() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            var action = sigaction()
            action.sa_flags = SA_SIGINFO | CInt(bitPattern: SA_RESETHAND)
            action.__sigaction_handler.sa_sigaction = { _, _, _ in LastSignal.count += 1 }
            sigaction(SIGBUS, &action, nil)
            let memory = try InThread(CountedSource(failsAfter: 0))
            _ = memory.range.loadWord(0)
        }
    }

    @Test
    func signalsThatAreBlockedStayBlocked() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            var set = sigset_t()
            sigemptyset(&set)
            sigaddset(&set, SIGBUS)
            pthread_sigmask(SIG_BLOCK, &set, nil)
            raise(SIGBUS)
            try memory.pager.pause()
            try memory.pager.resume()
            _exit(0)
        }
    }

    /// The program's handler could jump out of the service of the page for which the source is asked.
    @Test(.nestsSignals, arguments: [false, true])
    func theProgramIsNotAskedAboutASourcesFault(isFetched: Bool) async {
        await #expect(processExitsWith: .signal(SIGBUS)) { [isFetched = isFetched as Bool] in
            LastSignal.noteFaults()
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let range = mapping.range
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                if offset == 0 { _ = range.loadWord(pageBytes) }
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(UserfaultFD(features: .sigbus), source: source)
            try pager.add(range, options: RegionOptions(readAhead: .none))
            if isFetched {
                try pager.withPagesPresent(range) {}
            } else {
                _ = range.loadWord(0)
            }
            extendLifetime(mapping)
            _exit(0)
        }
    }

    /// A thread that waits to ask its source again goes on when there is nothing more to ask for.
    @Test(arguments: [true, false])
    func theEndIsToldToAThreadBetweenTwoAttempts(isRemoved: Bool) async {
        await #expect(processExitsWith: .success) { [isRemoved = isRemoved as Bool] in
            let policy = FailurePolicy(retries: 1, backOff: .seconds(60))
            let memory = try InThread(
                CountedSource(failsAfter: 0), options: RegionOptions(readAhead: .none, failure: policy))
            alarm(20)
            let range = memory.range
            let toucher = Toucher { range.loadWord(0) }
            guard wait(until: { Footprint.sleepingThreads(named: "toucher") == 1 }) else { exit(2) }
            if isRemoved {
                try memory.pager.remove(memory.region, .leaveZeros)
            } else {
                try memory.pager.stop(.leaveZeros)
            }
            guard toucher.value() == 0 else { exit(3) }
            extendLifetime(memory)
        }
    }

    /// A loader whose source touches the page that it is to bring does not wait for itself.
    @Test
    func aLoaderThatTouchesItsPageIsTold() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let range = mapping.range
            alarm(60)
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                _ = range.loadWord(offset)
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(UserfaultFD(features: .sigbus), source: source)
            let region = try pager.add(range, options: RegionOptions(readAhead: .none))
            try pager.start()
            try pager.populate(region, within: .seconds(30))
        }
    }

    /// Pages that are fetched while the service ends; the service is let go once its source has come back.
    @Test
    func theEndWaitsForNoFetch() async {
        await #expect(processExitsWith: .success) {
            let gate = Gate()
            let memory = try InThread(GatedSource(gate: gate), options: RegionOptions(readAhead: .none))
            let range = memory.range
            let pager = memory.pager
            let fetching = Toucher { pager.refusal(toFetch: range) }
            #expect(gate.waitUntilReached())
            let before = Footprint().descriptors
            try pager.stop(.poison, within: .milliseconds(1))
            gate.open()
            #expect(fetching.value() == .some(.notRunning))
            _ = try InThread(NumberedSource())
            #expect(Footprint().descriptors <= before)
        }
    }

    /// However many threads wait for one pager, another's faults are served, and those of nobody reach the program.
    @Test
    func aSourceThatHangsHoldsUpNoOtherPager() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let hanging = HangingSource()
            let (entered, isOver) = (hanging.entered, hanging.isOver)
            let slow = try InThread(hanging, pages: Seats.count + 1, options: RegionOptions(readAhead: .none))
            let healthy = try InThread(NumberedSource())
            let (range, other) = (slow.range, healthy.range)
            let touchers = (0...Seats.count).map { page in Toucher { range.loadWord(page * pageBytes) } }
            guard wait(until: { entered.value.load(ordering: .acquiring) == Seats.count }) else { exit(2) }
            guard Toucher.value({ other.loadWord(pageBytes) }) == NumberedSource.word(pageBytes) else { exit(3) }

            // Nobody's: a mapping beyond the end of its file.
            let file = try Memfd(count: pageBytes)
            let beyond = try Mapping(file, count: 2 * pageBytes)
            let past = beyond.range
            guard Toucher.value({ past.loadWord(pageBytes) }) == 0, LastSignal.count == 1 else { exit(4) }

            isOver.value.store(true, ordering: .releasing)
            for (page, toucher) in touchers.enumerated() where toucher.value() != NumberedSource.word(page * pageBytes)
            {
                exit(5)
            }
            extendLifetime(beyond)
            extendLifetime(slow)
            extendLifetime(healthy)
        }
    }

    /// Threads that wait for a seat go on when there is nothing more to wait for.
    @Test(arguments: [true, false])
    func theEndIsToldToThreadsWithoutSeats(isRemoved: Bool) async {
        await #expect(processExitsWith: .success) { [isRemoved = isRemoved as Bool] in
            let hanging = HangingSource()
            let (entered, isOver) = (hanging.entered, hanging.isOver)
            let memory = try InThread(hanging, pages: Seats.count + 4, options: RegionOptions(readAhead: .none))
            let range = memory.range
            let seated = (0..<Seats.count).map { page in Toucher { range.loadWord(page * pageBytes) } }
            guard wait(until: { entered.value.load(ordering: .acquiring) == Seats.count }) else { exit(2) }
            let waiting = (0..<4).map { page in Toucher { range.loadWord((Seats.count + page) * pageBytes) } }
            let all = Seats.count + waiting.count
            guard wait(until: { Footprint.sleepingThreads(named: "toucher") == all }) else { exit(3) }
            if isRemoved {
                try memory.pager.remove(memory.region, .leaveZeros, within: .milliseconds(1))
            } else {
                try memory.pager.stop(.leaveZeros, within: .milliseconds(1))
            }
            guard waiting.allSatisfy({ $0.value() == 0 }) else { exit(4) }
            isOver.value.store(true, ordering: .releasing)
            guard seated.allSatisfy({ $0.join() }) else { exit(5) }
            extendLifetime(memory)
        }
    }

    /// Threads come and go, each of which reads much in order at a seat of its own: few seats keep the memory for that.
    @Test
    func fewSeatsKeepTheirStaging() async {
        await #expect(processExitsWith: .success) {
            let pages = 2048
            let memory = try InThread(NumberedSource(), pages: 64 * pages)
            let range = memory.range
            let gate = Shared(Atomic<Int>(0))
            // All at once, so that their stacks differ.
            let touchers = (0..<64).map { number in
                Toucher {
                    gate.value.add(1, ordering: .relaxed)
                    while gate.value.load(ordering: .relaxed) < 64 { usleep(1000) }
                    return (number * pages..<(number + 1) * pages).allSatisfy {
                        range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes)
                    }
                }
            }
            for toucher in touchers { #expect(toucher.value() == true) }
            let server = try #require(
                memory.pager.core.faultServer.withLock { $0 } as? InThreadServer<NumberedSource>)
            let kept = try (0..<Seats.count).map { seat in
                try server.benches[seat].staging.residency().count(where: \.self) * pageBytes
            }
            #expect(kept.count { $0 > Workbench.usualBytes } <= Workbench.mostKeepers, "\(kept)")
            #expect(kept.contains { $0 > Workbench.usualBytes }, "nothing was read ahead")
        }
    }
}

/// A source that answers when it is told to.
struct HangingSource: PageSource {
    let entered = Shared(Atomic<Int>(0))
    let isOver = Shared(Atomic<Bool>(false))

    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        entered.value.add(1, ordering: .acquiringAndReleasing)
        while !isOver.value.load(ordering: .acquiring) { usleep(1000) }
        return NumberedSource().load(offset: offset, into: &pages)
    }
}
