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
}
