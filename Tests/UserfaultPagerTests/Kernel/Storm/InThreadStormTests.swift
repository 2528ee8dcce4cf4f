import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

extension StormTests {
    /// Threads that serve their own faults drop pages, fork, are interrupted by signals, and add and remove regions.
    ///
    /// A page holds what the source says, whoever dropped it: never zeros.
    @Test(.nestsSignals)
    func threadsThatServeThemselves() async {
        await #expect(processExitsWith: .success) {
            let storm = try InThreadStorm()
            #expect(try storm.run(faults: StormTests.faults) == nil)
        }
    }
}

/// Memory that many threads read and drop, each of which serves its own faults.
private final class InThreadStorm: Sendable {
    private static let pages = 512
    private let range: AddressRange
    private let pager: Pager<NumberedSource>
    private let isOver = Atomic<Bool>(false)
    private let handlers = Atomic<Int>(0)
    /// What went wrong first.
    private let failure = Mutex<String?>(nil)

    init() throws {
        range = try Mapping(anonymous: Self.pages * pageBytes).release()
        pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
        try pager.add(range, options: RegionOptions(readAhead: .adaptive(maximumPages: 3)))
        try pager.start()
    }

    /// - Returns: What was wrong, or `nil`.
    func run(faults: UInt64) throws -> String? {
        Interrupted.storm = self
        var action = sigaction()
        action.sa_flags = SA_RESTART
        action.__sigaction_handler.sa_handler = { _ in Interrupted.storm?.interrupted() }
        sigaction(SIGALRM, &action, nil)
        var timer = itimerval(
            it_interval: timeval(tv_sec: 0, tv_usec: 500), it_value: timeval(tv_sec: 0, tv_usec: 500))
        setitimer(CInt(ITIMER_REAL.rawValue), &timer, nil)
        var touchers = (0..<3).map { number in
            Toucher { [self] in
                var random = SplitMix(state: UInt64(number))
                while !isOver.load(ordering: .relaxed) { step(&random) }
            }
        }
        touchers.append(Toucher { [self] in while !isOver.load(ordering: .relaxed) { live() } })
        // This thread is one that the timer interrupts.
        var random = SplitMix(state: 99)
        while pager.statistics.faults < faults, failure.withLock({ $0 == nil }) {
            for _ in 0..<1000 { step(&random) }
        }
        isOver.store(true, ordering: .sequentiallyConsistent)
        timer = itimerval()
        setitimer(CInt(ITIMER_REAL.rawValue), &timer, nil)
        for toucher in touchers { #expect(toucher.join(seconds: 50), "a thread is stuck") }
        // A signal may have gone to any thread of the test's, and its handler be on its way still.
        #expect(wait { handlers.load(ordering: .sequentiallyConsistent) == 0 })
        #expect(pager.statistics.failures == 0 && pager.statistics.pagesPoisoned == 0)
        try pager.stop(.poison)
        return failure.withLock { $0 }
    }

    private func note(_ text: String) { failure.withLock { $0 = $0 ?? text } }

    /// What the handler of the timer does.
    private func interrupted() {
        handlers.add(1, ordering: .sequentiallyConsistent)
        defer { handlers.subtract(1, ordering: .sequentiallyConsistent) }
        guard !isOver.load(ordering: .sequentiallyConsistent) else { return }
        var random = SplitMix(state: MonotonicInstant.now.nanoseconds)
        read(&random)
    }

    private func read(_ random: inout SplitMix) {
        let offset = random.below(Self.pages) * pageBytes
        if range.loadWord(offset) != NumberedSource.word(offset) { note("a page is wrong") }
    }

    private func step(_ random: inout SplitMix) {
        read(&random)
        if random.below(8) == 0 {
            let first = random.below(Self.pages - 4)
            try? AddressSpace.advise(.dontNeed, range.part(at: first * pageBytes, count: 4 * pageBytes))
        }
        if random.below(1 << 14) == 0, inFork({ 0 }) != 0 { note("a child did not end") }
    }

    /// A region's life, while others fault.
    private func live() {
        do {
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let region = try pager.add(mapping.range)
            for offset in stride(from: 0, to: mapping.count, by: 3 * pageBytes)
            where mapping.range.loadWord(offset) != NumberedSource.word(offset) {
                note("a page of a region is wrong")
            }
            try pager.remove(region, .populate)
            for offset in stride(from: 0, to: mapping.count, by: pageBytes)
            where mapping.range.loadWord(offset) != NumberedSource.word(offset) {
                note("a page of a region is wrong")
            }
        } catch {
            note("a region: \(error)")
        }
    }

    /// What the handler of the timer knows.
    private enum Interrupted {
        nonisolated(unsafe) static var storm: InThreadStorm?
    }
}
