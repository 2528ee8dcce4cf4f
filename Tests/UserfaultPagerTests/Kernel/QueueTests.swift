import Testing
import UserfaultFD

@testable import UserfaultPager

/// Faults for which the queue has no room.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct QueueTests {
    /// Its thread sleeps until there is room, and does not fault again and again.
    @Test
    func aFaultWithoutRoomIsReadOnce() throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(),
            configuration: PagerConfiguration(service: .workers(2), watchdogInterval: .milliseconds(20)))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let memory = pager.core.memories[0]
        let queue = pager.core.queue
        var pending = PendingFault(fault: PageFault(address: range.start, flags: []), since: 0)
        pending.due = .max
        while memory.beginUse(), queue.putSilently(WorkQueue.Item(pending: pending, memory: 0)) {}
        memory.endUse()
        let toucher = Toucher { range.loadWord(pageBytes) }
        func hasBeenRead() throws -> Bool {
            let status = try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
            return status.pending == 0 && status.total == 1
        }
        #expect(try wait { try hasBeenRead() })
        #expect(try (0..<1000).allSatisfy { _ in try hasBeenRead() })
        while queue.take(where: { $0.pending.due == .max }) != nil { memory.endUse() }
        #expect(toucher.value() == NumberedSource.word(pageBytes))
        try pager.stop(.poison)
    }
}
