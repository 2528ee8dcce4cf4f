import Testing

@testable import UserfaultPager

/// What runs touched first.
@Suite struct WorkingSetTests {
    @Test func workingSetsOfRunsAreMerged() {
        var set = WorkingSet(offsets: [0, 4096, 8192], pageBytes: 4096)
        set.merge(WorkingSet(offsets: [8192, 16384], pageBytes: 4096))
        #expect(set.offsets == [8192, 16384, 0, 4096])
        set.merge(WorkingSet(offsets: [4096], pageBytes: 4096), limit: 3)
        #expect(set.offsets == [4096, 8192, 16384])
        set.merge(WorkingSet(offsets: [2 << 20], pageBytes: 2 << 20))
        #expect(set == WorkingSet(offsets: [2 << 20], pageBytes: 2 << 20))
    }
}
