import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Threads that wait in their own faults, and callers that have pages fetched.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadWaitingTests {
    /// What happens to other regions does not shorten the time that a policy leaves the source.
    @Test
    func removalsUseUpNoAttempts() async {
        await #expect(processExitsWith: .success) {
            let source = CountedSource(failsAfter: 0)
            let mapping = try Mapping(anonymous: pageBytes)
            let pager = try Pager(UserfaultFD(features: .sigbus), source: source)
            let policy = FailurePolicy(retries: 1, backOff: .seconds(60))
            try pager.add(mapping.range, options: RegionOptions(failure: policy))
            try pager.start()
            let range = mapping.range
            let toucher = Toucher { range.loadWord(0) }
            guard wait(until: { source.count == 1 }) else { exit(2) }
            for _ in 0..<50 {
                let other = try Mapping(anonymous: pageBytes)
                try pager.remove(pager.add(other.range), .poison)
                NativeThread.yield()
            }
            // A second attempt would have been the last one.
            guard source.count == 1 else { exit(3) }
            extendLifetime(toucher)
            exit(0)
        }
    }

    /// A thread that waits for a page has each service that takes it say when it is done.
    @Test
    func whoWaitsIsToldByEachService() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource(), pages: 1, options: RegionOptions(readAhead: .none))
            let served = memory.pager.core.memories[0]
            let range = memory.range
            func states() -> PageStates {
                served.sharingOrder { _, machine in machine.spans.find(range.start)!.states! }
            }
            guard !states().claim(0).contains(.claimed) else { exit(2) }
            let toucher = Toucher { range.loadWord(0) }
            for _ in 0..<3 {
                guard wait(until: { states()[0].contains(.awaited) }) else { exit(3) }
                // Given back and taken anew, before the thread looks.
                let before = states().update(0) { $0.subtracting(.awaited) }
                guard before.contains(.awaited) else { exit(4) }
                served.noteSettling()
            }
            guard wait(until: { states()[0].contains(.awaited) }) else { exit(5) }
            guard states().release(0) else { exit(6) }
            served.noteSettling()
            guard toucher.value() == NumberedSource.word(0) else { exit(7) }
        }
    }

    /// A mark of write protection is not a page.
    @Test
    func aPageOfWhichOnlyTheMarkIsLeftIsFetched() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(Memfd(count: 2 * pageBytes))
            let range = mapping.range
            let pager = try Pager(
                UserfaultFD(features: [.sigbus, .writeProtect, .writeProtectHugetlbfsShmem]), source: NumberedSource())
            try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
            try pager.start()
            let sink = try Memfd(count: 2 * pageBytes)
            for _ in 0..<2 {
                try pager.withPagesPresent(range) {
                    guard sink.take(range) == range.count else { exit(2) }
                }
                try mapping.advise(.remove)
            }
        }
    }

    /// What the end of the service makes of pages is told as that.
    @Test
    func pagesThatTheEndPoisonsAreNoFailures() async {
        await #expect(processExitsWith: .success) {
            let gate = Gate()
            let memory = try InThread(GatedSource(gate: gate), pages: 2, options: RegionOptions(readAhead: .none))
            let (pager, range) = (memory.pager, memory.range)
            let fetching = Toucher { pager.refusal(toFetch: range) }
            guard gate.waitUntilReached() else { exit(2) }
            let ending = Toucher { (try? pager.stop(.poison, within: .seconds(20))) != nil }
            let last = range.start + UInt(pageBytes)
            let served = pager.core.memories[0]
            // Then the page is lost, and the first one still to come.
            let isPoisoned = wait {
                served.sharingOrder { _, machine in
                    machine.spans.find(last).map { $0.states![1].contains(.poisoned) } ?? true
                }
            }
            gate.open()
            guard isPoisoned, fetching.value() == .some(.notRunning), ending.value() == true else { exit(3) }
        }
    }
}
