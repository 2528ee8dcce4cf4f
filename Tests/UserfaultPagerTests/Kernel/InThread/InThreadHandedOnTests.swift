import CTestSupport
import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Handlers of `SIGBUS` that are installed after the pager's, and hand on what is not their own.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadHandedOnTests {
    /// One that calls the handler that was there.
    @Test
    func aLaterHandlerMayHandOn() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            var action = sigaction()
            action.sa_flags = SA_SIGINFO
            action.__sigaction_handler.sa_sigaction = { signal, info, context in
                LastSignal.count += 1
                Handed.on.__sigaction_handler.sa_sigaction(signal, info, context)
            }
            sigaction(SIGBUS, &action, &Handed.on)
            #expect(memory.wrongPages == 0)
            #expect(LastSignal.count > 0)
        }
    }

    enum Handed {
        nonisolated(unsafe) static var on = sigaction()
    }

    /// Whatever that handler blocks, and whether it calls or jumps, other signals come after the fault.
    @Test(.nestsSignals, arguments: [SA_NODEFER, 0])
    func aLaterHandlerDoesNotOpenSignals(flags: CInt) async {
        await #expect(processExitsWith: .success) { [flags = flags as CInt] in
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                raise(SIGUSR1)
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let memory = try InThread(source, options: RegionOptions(readAhead: .none))
            cts_hand_on_faults(flags)
            Touches.range = memory.range
            var action = sigaction()
            action.sa_flags = SA_NODEFER
            action.__sigaction_handler.sa_handler = { _ in
                guard Touches.count < 15 else { return }
                Touches.count += 1
                let offset = Touches.count * pageBytes
                if Touches.range.loadWord(offset) != NumberedSource.word(offset) { Touches.wrong += 1 }
            }
            sigaction(SIGUSR1, &action, nil)
            // Threads of a pool have it blocked.
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGUSR1)
            pthread_sigmask(SIG_UNBLOCK, &signals, nil)
            guard memory.range.loadWord(0) == NumberedSource.word(0) else { exit(2) }
            guard Touches.wrong == 0 else { exit(3) }
            guard Touches.count == 15 else { exit(100 + CInt(Touches.count)) }
            extendLifetime(memory)
            var blocked = sigset_t()
            pthread_sigmask(SIG_BLOCK, nil, &blocked)
            guard sigismember(&blocked, SIGUSR1) == 0, sigismember(&blocked, SIGBUS) == 0 else { exit(4) }
        }
    }

    /// A source that touches another pager's memory, below a handler that has `SIGBUS` blocked.
    @Test(.nestsSignals)
    func aLaterHandlerMayHandOnInAnother() async {
        await #expect(processExitsWith: .success) {
            let inner = try InThread(NumberedSource(), options: RegionOptions(readAhead: .none))
            let range = inner.range
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                pages.append(repeating: range.loadWord(offset), count: pageBytes / 8, as: UInt64.self)
                return .data
            }
            let outer = try InThread(source, options: RegionOptions(readAhead: .none))
            cts_hand_on_faults(0)
            #expect(outer.wrongPages == 0)
            extendLifetime(inner)
        }
    }

    enum Touches {
        nonisolated(unsafe) static var range = AddressRange(start: 0, count: 0)
        nonisolated(unsafe) static var count = 0
        nonisolated(unsafe) static var wrong = 0
    }
}
