import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Faults of a program that changes its memory all the time: the kernel refuses fills until each change was read.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ChangingTests {
    private static let pages = 16

    /// What a fault is counted as, and how often the kernel is asked for it.
    @Test(arguments: EventTests.services)
    func changesAreWaitedForWithoutAskingOverAndOver(service: PagerConfiguration.Service) throws {
        let touched = try Mapping(anonymous: Self.pages * pageBytes)
        let dropped = try Mapping(anonymous: 2 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: .eventRemove), source: NumberedSource(),
            configuration: PagerConfiguration(service: service, handlers: 2))
        let region = try pager.add(touched.range, options: RegionOptions(readAhead: .none))
        try pager.add(dropped.range, offset: Self.pages * pageBytes)
        try pager.start()

        let isOver = Shared(Atomic(false))
        let (range, other) = (touched.range, dropped.range)
        let drops = Toucher {
            var count = 0
            while !isOver.value.load(ordering: .relaxed) {
                try? AddressSpace.advise(.dontNeed, other)
                count += 1
            }
            return count
        }
        let wrong = Toucher.value {
            (0..<Self.pages).count { range.loadWord($0 * pageBytes) != NumberedSource.word($0 * pageBytes) }
        }
        isOver.value.store(true, ordering: .relaxed)
        let changes = try #require(drops.value())
        #expect(wrong == 0)
        try pager.stop(.poison)

        let statistics = pager.settledStatistics
        #expect(statistics.events == UInt64(changes))
        // Once for each thread that touched it, however often it was tried.
        #expect(try pager.statistics(of: region).missingFaults == UInt64(Self.pages))
        // Where the kernel was asked at intervals, whatever happened, it was 24 times for each change.
        #expect(statistics.mappingWasChanging <= statistics.events + 2 * UInt64(Self.pages))
        extendLifetime(touched)
        extendLifetime(dropped)
    }

    /// Another region goes meanwhile, whose end waits for a moment without a change.
    @Test(arguments: [Ending.leaveZeros, .poison])
    func aRegionIsRemovedBetweenChanges(ending: Ending) throws {
        let mapping = try Mapping(anonymous: 2 * pageBytes)
        let dropped = try Mapping(anonymous: 2 * pageBytes)
        let pager = try Pager(UserfaultFD(features: .eventRemove), source: NumberedSource())
        let region = try pager.add(mapping.range)
        try pager.add(dropped.range, offset: 2 * pageBytes)
        try pager.start()
        let isOver = Shared(Atomic(false))
        let other = dropped.range
        let drops = Toucher {
            while !isOver.value.load(ordering: .relaxed) { try? AddressSpace.advise(.dontNeed, other) }
        }
        #expect(wait { pager.statistics.events > 100 })
        #expect(error { () throws(PagerError) in try pager.remove(region, ending) } == nil)
        isOver.value.store(true, ordering: .relaxed)
        #expect(drops.join())
        #expect(pager.core.memories[0].sharingOrder { _, machine in machine.spans.count } == 1)
        try pager.stop(.leaveZeros)
        extendLifetime(mapping)
        extendLifetime(dropped)
    }
}
