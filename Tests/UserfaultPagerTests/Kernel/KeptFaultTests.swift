import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Faults of no region whose threads wait: somebody lets them go, whatever comes between.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct KeptFaultTests {
    /// A thread faults where memory is moved to, before the event that says so is read.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aFaultWhereARegionMovesToGoesOn(service: PagerConfiguration.Service) throws {
        let range = try Mapping(anonymous: 8 * pageBytes).release()
        let old = range.part(at: 0, count: 4 * pageBytes)
        let new = range.part(at: 4 * pageBytes, count: 4 * pageBytes)
        let uffd = try UserfaultFD(features: [.eventRemap, .eventUnmap])
        _ = try uffd.register(new, modes: .missing)
        let pager = try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: service, strays: .wait))
        try pager.add(old)
        try pager.start()
        let memory = pager.core.memories[0]
        let touchers = [0, 3].map { page in Toucher { new.loadWord(page * pageBytes) } }
        #expect(wait { memory.kept.withLock { $0.count } == 2 })
        var spare = EventBatch(capacity: 1)
        try memory.excludingOthers { (uffd, machine) throws(UserfaultError) in
            // Two of its four pages.
            let event = Event.remap(from: old.start, to: new.start, count: 2 * pageBytes)
            try pager.core.take(event, of: memory, &machine, uffd, &spare)
        }
        #expect(touchers[0].value() == NumberedSource.word(0))
        #expect(memory.kept.withLock { $0.count } == 1)
        try pager.setStrayPolicy(.zeros)
        #expect(touchers[1].value() == 0)
        try pager.stop(.leaveZeros)
    }

    /// The user says that a thread is to wait, and has said something else before that is done.
    @Test
    func anotherPolicyReachesAFaultThatIsBeingAnswered() throws {
        let range = try Mapping(anonymous: pageBytes).release()
        let uffd = try UserfaultFD()
        _ = try uffd.register(range, modes: .missing)
        let gate = Gate()
        let pager = try Self.pager(uffd, asking: gate)
        let toucher = Toucher { range.loadWord(0) }
        try #require(gate.waitUntilReached())
        try pager.setStrayPolicy(.zeros)
        gate.open()
        #expect(toucher.value() == 0)
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
    }

    /// The pager stops, and somebody else has the descriptor too.
    @Test(arguments: [Ending.leaveZeros, .poison])
    func aFaultThatIsBeingAnsweredIsEnded(ending: Ending) async {
        let poisons = ending == .poison
        await #expect(processExitsWith: poisons ? .signal(SIGBUS) : .success) { [poisons = poisons as Bool] in
            let range = try Mapping(anonymous: pageBytes).release()
            let uffd = try UserfaultFD()
            let second = try uffd.duplicate()
            _ = try uffd.register(range, modes: .missing)
            let gate = Gate()
            let pager = try Self.pager(uffd, asking: gate)
            let toucher = Toucher { range.loadWord(0) }
            guard gate.waitUntilReached() else { exit(2) }
            let stopping = Toucher {
                error { () throws(PagerError) in try pager.stop(poisons ? .poison : .leaveZeros) }
            }
            let memory = pager.core.memories[0]
            guard wait(until: { memory.sharingOrder { _, _ in memory.isSealed } }) else { exit(3) }
            gate.open()
            guard stopping.value() == .some(nil) else { exit(4) }
            let word = toucher.value()
            extendLifetime(second)
            exit(word == 0 ? 0 : 5)
        }
    }

    /// One that waits at a gate before it says that a thread is to wait.
    private static func pager(_ uffd: consuming UserfaultFD, asking gate: Gate) throws -> Pager<NumberedSource> {
        let policy = StrayPolicy.ask { _ in
            gate.pass()
            return .wait
        }
        let pager = try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: .workers(2), strays: policy))
        try pager.start()
        return pager
    }
}
