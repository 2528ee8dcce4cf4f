import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What comes late, or fails half way, leaves nothing behind.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct LeftBehindTests {
    /// A grandchild that is taken on while its parent is waited for comes to a place that was passed already.
    @Test
    func aGrandchildThatComesLateIsSealedToo() throws {
        let mapping = try Mapping(anonymous: 16 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: NumberedSource(),
            configuration: PagerConfiguration(maximumChildren: 2))
        try pager.add(mapping.range)
        let core = pager.core
        let memory = core.memories[0]
        func open(_ child: ServedMemory) throws {
            var copy: PagerStateMachine?
            try memory.sharingOrder { (_, machine) throws(UserfaultError) in copy = try machine.copyForChild() }
            child.open(try memory.duplicate(), copy.take()!)
        }
        try open(core.children[1])
        let sealing = try core.children[1].excludingOthers { (_, _) throws -> Toucher<Void> in
            let sealing = Toucher { core.seal(until: Deadline(after: .seconds(20))) }
            // It has passed the first place when it has done with the pager's own memory, and waits for the second.
            #expect(wait { memory.sharingOrder { _, _ in memory.isSealed } })
            try open(core.children[0])
            return sealing
        }
        #expect(sealing.join())
        for child in core.children where !child.isVacant { #expect(child.isSealed) }
        for child in core.children { child.close() }
    }

    @Test
    func aJobThatComesTooLateIsNotKept() throws {
        let queue = try WorkQueue(capacity: 16, loaderLimit: 1, signals: SharedFutex())
        queue.close()
        let job = queue.submit(.prefetch([], of: nil))
        #expect(job.isOver && job.isCancelled)
        #expect(!queue.hasJobs)
    }

    /// More pages are to be tried again than the queue has room for: nothing keeps the descriptor open at the end.
    @Test
    func aFullQueueKeepsNothingOpen() throws {
        let mapping = try Mapping(anonymous: 6000 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: FlakySource(failures: .max))
        let region = try pager.add(
            mapping.range, options: RegionOptions(failure: FailurePolicy(retries: 3, backOff: .seconds(60))))
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        let room = 4 << 10
        #expect(wait { pager.statistics.queued == room && pager.statistics.retries > room })
        try pager.stop(.poison)
        #expect(populating.join())
        #expect(wait { pager.core.memories[0].isVacant })
        withExtendedLifetime(mapping) {}
    }

    /// A region that cannot be protected is not registered either.
    @Test
    func aRegionThatIsNotAddedIsNotRegistered() throws {
        let first = try Mapping(anonymous: pageBytes)
        let second = try Mapping(anonymous: pageBytes)
        second.range.store(1, at: 0)
        let pager = try Pager(UserfaultFD(features: [.writeProtect, .eventRemove]), source: ZeroSource())
        try pager.add(first.range)
        // It waits until its event is read, which nobody does: no page can be protected meanwhile.
        let dropped = first.range
        let dropping = Toucher { try? AddressSpace.advise(.dontNeed, dropped) }
        #expect(try poll(pager.core.memories[0].rawDescriptor, until: Deadline(after: .seconds(20))) != 0)
        #expect(throws: PagerError.self) {
            try pager.add(second.range, options: RegionOptions(writeProtected: true))
        }
        let other = try UserfaultFD()
        #expect(throws: Never.self) { try other.register(second.range, modes: .missing) }
        try pager.stop(.poison)
        #expect(dropping.join())
        withExtendedLifetime(first) {}
        withExtendedLifetime(second) {}
    }
}
