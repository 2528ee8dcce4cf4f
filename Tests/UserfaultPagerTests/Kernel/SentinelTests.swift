import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Threads that sleep in `read(2)`, and what brings them back.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SentinelTests {
    @Test
    func eachTouchIsOneMessage() throws {
        let memory = try ServedMemory(UserfaultFD())
        // As long as somebody else has the descriptor, closing it lets nobody go.
        let duplicate = try memory.duplicate()
        let box = SentinelBox(try Sentinel.make(for: memory, handlers: 2), of: memory)
        let toucher = Toucher { box.sentinel.touchAll() }
        #expect(awaitPending(1, of: memory))
        box.sentinel.end(in: memory)
        #expect(toucher.join())
        try duplicate.close()
        memory.close()
    }

    /// The watchdog that looks for faults which nobody takes must not go to sleep where somebody was faster.
    @Test
    func theWatchdogDoesNotSleepInRead() throws {
        let pager = try Pager(
            UserfaultFD(), source: ZeroSource(), configuration: PagerConfiguration(waiting: .block))
        let core = pager.core
        let watchdog = Toucher { takeOver(core) }
        #expect(watchdog.join())
        // It blocks again for the handlers.
        #expect(fcntl(core.memories[0].rawDescriptor, F_GETFL) & CInt(O_NONBLOCK) == 0)
        try pager.stop(.populate)
    }

    /// Handlers that get no processor for long are no deadlock: their faults are still theirs.
    @Test(arguments: [UserfaultFD.Features(), .threadID])
    func faultsThatNobodyTakesInTimeAreServedLater(features: UserfaultFD.Features) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let reports = Reports()
        let pager = try Pager(
            UserfaultFD(features: features), source: NumberedSource(),
            configuration: PagerConfiguration(report: { reports.add($0) }))
        try pager.add(mapping.range)
        let range = mapping.range
        let toucher = Toucher { range.loadWord(0) }
        #expect(awaitPending(1, of: pager.core.memories[0]))
        takeOver(pager.core)
        #expect(reports.all == [])
        try pager.start()
        #expect(toucher.value() == NumberedSource.word(0))
        try pager.stop(.poison)
    }

    /// Does once what the watchdog does where nobody takes faults.
    private func takeOver<Source>(_ core: PagerCore<Source>) {
        var tools = ClockTools()
        core.takeOver(core.memories[0], with: &tools)
        core.deliverReports()
    }

    private func awaitPending(_ count: Int, of memory: ServedMemory) -> Bool {
        let deadline = MonotonicInstant.now.nanoseconds + 20_000_000_000
        while MonotonicInstant.now.nanoseconds < deadline {
            let status = try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
            if status?.pending == count { return true }
            NativeThread.yield()
        }
        return false
    }
}
