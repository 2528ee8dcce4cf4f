import CTestSupport
import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Children of forks: their places, and what is left to those that have none, or whose region goes.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ChildTests {
    /// Serves memory whose program has one child, which lives: there is no place for a second one.
    private static func withoutAPlace(
        pages: Int, _ body: (AddressRange, Pager<NumberedSource>) throws -> Void
    ) throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: NumberedSource(),
            configuration: PagerConfiguration(service: .workers(1), maximumChildren: 1))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let child = cts_fork_waiting()
        try body(mapping.range, pager)
        guard cts_kill(child) == -SIGKILL else { exit(10) }
    }

    /// Nobody waits for a living child to leave its place: the thread that reads has others to read for.
    @Test(.followsForks)
    func childrenThatLiveAreNotWaitedFor() async {
        await #expect(processExitsWith: .success) {
            try ChildTests.withoutAPlace(pages: 1) { range, pager in
                // Each of them would be waited for as long as a call may take.
                let forking = Toucher { (0..<250).allSatisfy { _ in cts_kill(cts_fork_waiting()) == -SIGKILL } }
                guard forking.value() == true else { exit(2) }
                guard Toucher.value({ range.loadWord(0) }) == NumberedSource.word(0) else { exit(3) }
                try pager.stop(.poison)
            }
        }
    }

    /// A child whose pages cannot be poisoned is tried once, page by page.
    @Test(.followsForks)
    func aChildThatCannotBePoisonedIsLeftWaiting() async {
        await #expect(processExitsWith: .success) {
            try ChildTests.withoutAPlace(pages: 4 << 10) { range, pager in
                guard cts_refuse_poison(ENOMEM) == 0 else { exit(2) }
                let child = cts_fork_waiting()
                guard Toucher.value({ range.loadWord(0) }) == NumberedSource.word(0) else { exit(3) }
                guard cts_kill(child) == -SIGKILL else { exit(4) }
                // Nothing is left to be poisoned.
                try pager.stop(.populate)
            }
        }
    }

    /// One fork makes one event for each shard.
    @Test(.followsForks)
    func aChildTakesOnePlaceHoweverManyShards() throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let range = mapping.range
        let reports = Reports()
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: NumberedSource(),
            configuration: PagerConfiguration(shards: 2, maximumChildren: 1, report: { reports.add($0) }))
        try pager.add(range)
        try pager.start()
        for _ in 0..<10 {
            let end = inFork {
                for page in 0..<8 where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) {
                    return CInt(page + 1)
                }
                return 0
            }
            #expect(end == 0)
        }
        #expect(reports.all == [])
        try pager.stop(.poison)
    }

    /// A region is removed before anybody has read of a fork: the child has its memory, and its end as well.
    @Test(.followsForks)
    func aChildOfARegionThatWasRemovedReadsZeros() throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        // Another mapping: what adjoins a region is no stray.
        let further = try Mapping(anonymous: 2 * pageBytes, sharing: .shared)
        let (range, other) = (mapping.range, further.range)
        let pager = try Pager(UserfaultFD(features: .eventFork), source: NumberedSource())
        let region = try pager.add(range)
        try pager.add(other)
        let toucher = Toucher { other.loadWord(pageBytes) }
        let memory = pager.core.memories[0]
        #expect(
            try wait { try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending } == 1 })
        let forking = Toucher { cts_fork_loader(range.start) }
        #expect(wait { memory.withDescriptor { uffd in uffd.probe(range.part(at: 0, count: pageBytes)) } == .changing })
        try pager.remove(region, .leaveZeros)
        try pager.start()
        // A fault that was read meanwhile is not forgotten.
        #expect(toucher.value() == NumberedSource.word(pageBytes))
        let child = try #require(forking.value())
        #expect(cts_wait(child) == 0)
        try pager.stop(.poison)
        #expect(pager.statistics.strayFaults == 0)
    }
}
