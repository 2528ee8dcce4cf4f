import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Pages for which no thread waits, of several regions.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct PrefetchTests {
    /// Regions of one source may have the same pages: a region that is named is the one that gets them, and a list of
    /// offsets is about every region that has them.
    @Test(arguments: [0, 1])
    func theRegionThatIsNamedIsTheOneThatIsLoaded(named: Int) throws {
        let first = try Mapping(anonymous: 16 * pageBytes)
        let second = try Mapping(anonymous: 16 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let regions = [try pager.add(first.range), try pager.add(second.range)]
        try pager.start()
        func copied(_ number: Int) throws -> UInt64 { try pager.statistics(of: regions[number]).pagesCopied }
        try pager.prefetch(regions[named], count: 8 * pageBytes)
        #expect(wait { pager.statistics.pagesCopied == 8 })
        #expect(try copied(named) == 8)
        #expect(try copied(1 - named) == 0)
        // One of them has the first of these pages already.
        try pager.replay(
            WorkingSet(offsets: [7, 9, 10].map { UInt64($0 * pageBytes) }, pageBytes: UInt32(pageBytes)))
        #expect(wait { pager.statistics.pagesCopied == 13 })
        #expect(try copied(named) == 10)
        #expect(try copied(1 - named) == 3)
        try pager.stop(.poison)
    }

    /// Nobody prefetches what has gone meanwhile, and nobody looks at what was freed.
    @Test
    func regionsComeAndGoUnderPrefetches() throws {
        let mapping = try Mapping(anonymous: 16 * pageBytes)
        let source = ClosureSource<Never>(isSlow: true) { offset, pages in
            NativeThread.yield()
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(3)))
        try pager.start()
        for turn in 0..<200 {
            let region = try pager.add(mapping.range)
            try pager.prefetch(region, count: 16 * pageBytes)
            for _ in 0..<turn % 16 { NativeThread.yield() }
            try pager.remove(region, .leaveZeros)
            try mapping.advise(.dontNeed)
        }
        #expect(throws: PagerError.noSuchRegion) {
            let region = try pager.add(mapping.range)
            try pager.remove(region, .leaveZeros)
            try pager.prefetch(region, count: pageBytes)
        }
        // Nothing of theirs is held once the last piece is done.
        let isForgotten = wait {
            pager.core.retireRegions()
            return pager.core.registry.withLock { $0.retired.isEmpty }
        }
        #expect(isForgotten)
        try pager.stop(.poison)
    }
}
