import CUserfaultFD
import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Threads that sleep in `read(2)`, and what brings them back.
@Suite(.serialized, .timeLimit(.minutes(1)))
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
        let watchdog = Toucher {
            guard let bench = try? Workbench(core.makeRecord()) else { return }
            var watchdog = Watchdog(bench: bench, ownerDescriptor: -1)
            core.takeOver(core.memories[0], &watchdog)
        }
        #expect(watchdog.join())
        // It blocks again for the handlers.
        #expect(cuffd_status_flags(core.memories[0].rawDescriptor) & CInt(O_NONBLOCK) == 0)
        try pager.stop(.populate)
    }

    private func awaitPending(_ count: Int, of memory: ServedMemory) -> Bool {
        let deadline = cuffd_monotonic_nanoseconds() + 20_000_000_000
        while cuffd_monotonic_nanoseconds() < deadline {
            let status = try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
            if status?.pending == count { return true }
            _ = cuffd_sched_yield()
        }
        return false
    }
}
