import Testing
import UserfaultFD

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

    private static let page = UInt32(pageBytes)
    private static let damaged: [WorkingSet] = [
        WorkingSet(offsets: [UInt64(Int.max) & ~0xfff], pageBytes: page),
        WorkingSet(offsets: [0, 1 << 63], pageBytes: page),
        WorkingSet(offsets: [.max], pageBytes: page),
        WorkingSet(offsets: [7], pageBytes: page),
        WorkingSet(offsets: [0], pageBytes: 0),
        WorkingSet(offsets: [0], pageBytes: 1),
        WorkingSet(offsets: [0], pageBytes: page + 1),
        WorkingSet(offsets: [0], pageBytes: page / 2),
        WorkingSet(offsets: [0], pageBytes: .max),
    ]

    @Test(arguments: damaged)
    func damagedListsAreRefused(_ set: WorkingSet) throws {
        #expect(WorkingSet(bytes: set.bytes) == nil)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.start()
        let error = error { () throws(PagerError) in try pager.replay(set) }
        switch error {
        case .badOffset, .badPageSize: break
        default: Issue.record("\(String(describing: error))")
        }
        try pager.stop(.poison)
    }

    @Test func listsAreReadAsTheyWereWritten() {
        let set = WorkingSet(offsets: [1 << 20, 0, UInt64(Int.max) & ~0x1fff], pageBytes: Self.page)
        #expect(WorkingSet(bytes: set.bytes) == set)
        #expect(WorkingSet(bytes: Array(set.bytes.dropLast())) == nil)
    }
}
