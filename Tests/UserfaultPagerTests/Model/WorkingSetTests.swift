import Testing

@testable import UserfaultPager

/// What runs touched first.
@Suite struct WorkingSetTests {
    @Test func workingSetsOfRunsAreMerged() {
        func pages(_ numbers: [UInt64]) -> WorkingSet {
            WorkingSet(offsets: numbers.map { $0 * UInt64(pageBytes) }, pageBytes: UInt32(pageBytes))
        }
        var set = pages([0, 1, 2])
        set.merge(pages([2, 4]))
        #expect(set == pages([2, 4, 0, 1]))
        set.merge(pages([1]), limit: 3)
        #expect(set == pages([1, 2, 4]))
        set.merge(WorkingSet(offsets: [2 << 20], pageBytes: 2 << 20))
        #expect(set == WorkingSet(offsets: [2 << 20], pageBytes: 2 << 20))
    }
}
