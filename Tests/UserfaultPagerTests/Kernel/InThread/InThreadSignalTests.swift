import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Other signals, other owners, other processes.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadSignalTests {
    /// The program's own handling of `SIGBUS`, installed before, sees what is lost, and where.
    @Test
    func aLostPageIsTheProgramsToHandle() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let memory = try InThread(
                CountedSource(failsAfter: 0), options: RegionOptions(readAhead: .none, failure: .poisonAtOnce))
            _ = memory.range.loadWord(5 * pageBytes + 24)
            #expect(LastSignal.count == 1)
            #expect(LastSignal.address == memory.range.start + UInt(5 * pageBytes + 24) || LastSignal.code != 2)
            #expect(memory.pager.settledStatistics.failures == 1)
        }
    }

    @Test
    func aLostPageEndsAProgramThatHandlesNothing() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let memory = try InThread(CountedSource(failsAfter: 0))
            _ = memory.range.loadWord(0)
        }
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let policy = FailurePolicy(retries: 0, ending: .killOwner)
            let memory = try InThread(CountedSource(failsAfter: 0), options: RegionOptions(failure: policy))
            _ = memory.range.loadWord(0)
        }
    }

    @Test
    func aSourceThatFailsNowAndThenIsAskedAgain() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(FlakySource(failures: 2), options: RegionOptions(readAhead: .none))
            #expect(memory.wrongPages == 0)
            #expect(memory.pager.settledStatistics.retries == 2)
        }
    }

    /// A file that was cut: not the pager's, and what was there before handles it.
    @Test
    func othersFaultsGoWhereTheyWent() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let memory = try InThread(NumberedSource())
            let file = try Memfd(count: pageBytes)
            let mapping = try Mapping(file)
            try file.resize(to: 0)
            for round in 1...3 {
                let other = try Mapping(file, count: pageBytes)
                _ = other.range.loadWord(8)
                #expect(LastSignal.count == round && LastSignal.address == other.range.start + 8)
                #expect(LastSignal.code == 2)
            }
            #expect(memory.wrongPages == 0)
            _ = mapping
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let memory = try InThread(NumberedSource())
            let file = try Memfd(count: pageBytes)
            let mapping = try Mapping(file)
            try file.resize(to: 0)
            #expect(memory.wrongPages == 0)
            _ = mapping.range.loadWord(0)
        }
        // Sent by a process.
        await #expect(processExitsWith: .signal(SIGBUS)) {
            _ = try InThread(NumberedSource())
            raise(SIGBUS)
        }
    }

    /// Ends the process without giving up memory.
    private static func leave(_ memory: borrowing InThread<NumberedSource>) { exit(0) }

    /// Handlers of other signals touch the memory while this thread is within the pager.
    @Test(.nestsSignals)
    func handlersOfOtherSignalsMayTouchTheMemory() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource(), pages: 256)
            Touched.range = memory.range
            var action = sigaction()
            action.sa_flags = SA_RESTART
            action.__sigaction_handler.sa_handler = { _ in
                for _ in 0..<4 {
                    Touched.page = (Touched.page + 37) % 256
                    let offset = Touched.page * pageBytes
                    if Touched.range.loadWord(offset) != NumberedSource.word(offset) { Touched.wrong += 1 }
                }
                Touched.count += 1
            }
            sigaction(SIGALRM, &action, nil)
            var timer = itimerval(
                it_interval: timeval(tv_sec: 0, tv_usec: 100), it_value: timeval(tv_sec: 0, tv_usec: 100))
            setitimer(CInt(ITIMER_REAL.rawValue), &timer, nil)
            let other = try Mapping(anonymous: 16 * pageBytes)
            let deadline = Deadline(after: .seconds(30))
            while Touched.count < 500, !deadline.hasPassed {
                let region = try memory.pager.add(other.range)
                for page in 0..<16 {
                    #expect(other.range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes))
                }
                _ = memory.pager.statistics
                try memory.pager.remove(region, .populate)
                try other.advise(.dontNeed)
                try memory.mapping.advise(.dontNeed)
            }
            timer = itimerval()
            setitimer(CInt(ITIMER_REAL.rawValue), &timer, nil)
            guard Touched.count >= 500, Touched.wrong == 0, memory.wrongPages == 0 else { exit(2) }
            // Another thread may be in the handler of the last signal: the memory stays until the process has ended.
            InThreadSignalTests.leave(memory)
        }
    }

    enum Touched {
        nonisolated(unsafe) static var range = AddressRange(start: 0, count: 0)
        nonisolated(unsafe) static var page = 0
        nonisolated(unsafe) static var count = 0
        nonisolated(unsafe) static var wrong = 0
    }

    /// The kernel cannot ask: a thread that blocks `SIGBUS` ends, and is never shown zeros.
    @Test
    func aThreadThatBlocksTheSignalEnds() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let memory = try InThread(NumberedSource())
            var set = sigset_t()
            sigfillset(&set)
            pthread_sigmask(SIG_BLOCK, &set, nil)
            _ = memory.range.loadWord(0)
            _exit(0)
        }
    }

    @Test(.nestsSignals)
    func aSourceThatTouchesItsOwnMemoryIsTold() async {
        let result = await #expect(
            processExitsWith: .signal(SIGBUS), observing: [\.standardErrorContent]
        ) {
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let range = mapping.range
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                if offset == 0 { _ = range.loadWord(pageBytes) }
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(UserfaultFD(features: .sigbus), source: source)
            try pager.add(range, options: RegionOptions(readAhead: .none))
            _ = range.loadWord(0)
            _exit(0)
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(text.contains("a source touched memory that it is to bring"))
    }

    /// It is asked in the order, which a thread waits to have for itself: the fault of the source must not wait behind it.
    @Test(.nestsSignals)
    func anInstantSourceThatTouchesItsOwnMemoryIsTold() async {
        let result = await #expect(
            processExitsWith: .signal(SIGBUS), observing: [\.standardErrorContent]
        ) {
            alarm(60)
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let further = try Mapping(anonymous: 16 * pageBytes)
            let source = SelfTouchingSource(range: mapping.range)
            let pager = Shared(try Pager(UserfaultFD(features: .sigbus), source: source))
            try pager.value.add(mapping.range, options: RegionOptions(readAhead: .none))
            let adder = Toucher {
                source.state.value.adder.store(NativeThread.currentID, ordering: .relaxed)
                while !source.state.value.isAsked.load(ordering: .relaxed) {}
                _ = try? pager.value.add(further.range)
            }
            while source.state.value.adder.load(ordering: .relaxed) == 0 {}
            defer { extendLifetime(adder) }
            _ = mapping.range.loadWord(0)
            _exit(0)
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(text.contains("a source touched memory that it is to bring"))
    }

    /// Neither a large stack nor one of the program's own is needed.
    @Test
    func theAlternateStackIsUsed() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            let stack = try Mapping(anonymous: 16 * pageBytes)
            var alternate = stack_t(
                ss_sp: UnsafeMutableRawPointer(bitPattern: stack.range.start), ss_flags: 0, ss_size: 16 * pageBytes)
            #expect(sigaltstack(&alternate, nil) == 0)
            #expect(memory.wrongPages == 0)
            let touched = try AddressSpace.residency(of: stack.range).filter(\.self).count
            #expect(touched > 0 && touched <= 8, "\(touched) pages")
        }
    }

    // MARK: Other processes

    @Test
    func aChildDoesNotHaveTheMemory() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            let range = memory.range
            #expect(range.loadWord(0) == NumberedSource.word(0))
            #expect(inFork { CInt(truncatingIfNeeded: range.loadWord(0)) } == -Int(SIGSEGV))
            // Its own memory at the same place is its own.
            let status = inFork {
                let address = UnsafeMutableRawPointer(bitPattern: range.start)
                let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
                guard mmap(address, range.count, PROT_READ, flags, -1, 0) == address else { return 2 }
                return range.loadWord(0) == 0 ? 0 : 1
            }
            #expect(status == 0)
            #expect(memory.wrongPages == 0)
        }
    }

    /// Other programs are started from threads that fault all the time.
    @Test
    func programsAreStartedMeanwhile() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource(), pages: 64)
            let range = memory.range
            let isOver = Shared(Atomic<Bool>(false))
            let toucher = Toucher {
                var wrong = 0
                while !isOver.value.load(ordering: .relaxed) {
                    for page in 0..<64 where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) {
                        wrong += 1
                    }
                    try? AddressSpace.advise(.dontNeed, range)
                }
                return wrong
            }
            for _ in 0..<30 {
                var pid: pid_t = 0
                var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("/bin/true"), nil]
                defer { free(arguments[0]) }
                #expect(posix_spawn(&pid, "/bin/true", nil, nil, &arguments, nil) == 0)
                var status: CInt = 0
                waitpid(pid, &status, 0)
                #expect(status == 0)
                #expect(inFork { 0 } == 0)
            }
            isOver.value.store(true, ordering: .relaxed)
            #expect(toucher.value() == 0)
        }
    }

    // MARK: The kernel's own accesses

    @Test
    func theKernelFindsWhatWasFetched() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            let range = memory.range
            let sink = try Memfd(count: 16 * pageBytes)
            #expect(sink.take(range) == -1 && errno == EFAULT)
            try memory.pager.withPagesPresent(range) { #expect(sink.take(range) == 16 * pageBytes) }
            try memory.mapping.advise(.dontNeed)
            try memory.pager.withPagesPresent(range) { #expect(sink.take(range) == 16 * pageBytes) }
            let beyond = AddressRange(start: memory.range.start, count: 17 * pageBytes)
            #expect(throws: PagerError.noSuchRegion) { try memory.pager.withPagesPresent(beyond) {} }
        }
        await #expect(processExitsWith: .success) {
            let memory = try InThread(
                CountedSource(failsAfter: 3), options: RegionOptions(readAhead: .none, failure: .poisonAtOnce))
            #expect(throws: PagerError.pagesFailed(13)) { try memory.pager.withPagesPresent(memory.range) {} }
        }
    }

    // MARK: Misuse

    @Test
    func whatCannotBeIsSaid() throws {
        struct Unsafe: PageSource {
            func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply { .zero }
        }
        func refusal<Source: PageSource>(
            _ source: Source, _ features: UserfaultFD.Features, _ configuration: PagerConfiguration = .init()
        ) throws -> String {
            do throws(PagerError) {
                let uffd = try asPagerError { () throws(UserfaultError) in try UserfaultFD(features: features) }
                _ = try Pager(uffd, source: source, configuration: configuration)
                return "nothing"
            } catch {
                return "\(error)"
            }
        }
        #expect(try refusal(Unsafe(), .sigbus).contains("isSignalSafe"))
        let boxing = ClosureSource<any Error>(isSignalSafe: true) { _, _ in throw Errno.ioError }
        #expect(try refusal(boxing, .sigbus).contains("any Error"))
        let file = try Memfd(count: pageBytes)
        #expect(try refusal(SharedPages(file, from: boxing).source, .sigbus).contains("isSignalSafe"))
        #expect(try refusal(ZeroSource(), [], .init(service: .inThread)).contains("Features.sigbus"))
        #expect(try refusal(ZeroSource(), .sigbus, .init(service: .workers(2))).contains("no messages"))
        #expect(try refusal(ZeroSource(), .sigbus, .init(sourceTimeout: .seconds(1))).contains("no time limit"))
        #expect(try refusal(ZeroSource(), [.sigbus, .eventRemove]).contains("no events"))
        #expect(try refusal(ZeroSource(), .sigbus, .init(shards: 2)).contains("one descriptor"))
    }
}
