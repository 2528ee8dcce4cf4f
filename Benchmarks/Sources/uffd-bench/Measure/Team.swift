import CBenchBaseline
import UserfaultFD

/// Threads that wait for work, and touch their own part of memory each, all at once.
final class Team {
    private let team: OpaquePointer
    private let count: Int

    /// One thread for each processor that is named.
    init(_ processors: [Int]) {
        count = processors.count
        team = cbb_team_create(processors.count, processors.map(Int32.init))
    }

    deinit { cbb_team_destroy(team) }

    /// Every page of memory, in sequence.
    func touch(_ memory: Memory) -> UInt64 {
        let pages = memory.pages / count
        let size = memory.pageSize
        return cbb_team_touch(
            team,
            cbb_team_work(
                base: memory.base, part: UInt64(pages * size), pages: pages, page_size: size, order: nil))
    }

    /// Some pages of each part of memory, in an order.
    func touch(_ range: AddressRange, order: [UInt32]) -> UInt64 {
        order.withUnsafeBufferPointer { order in
            cbb_team_touch(
                team,
                cbb_team_work(
                    base: UInt64(range.start), part: UInt64(range.count / count), pages: order.count,
                    page_size: PageSize.base.bytes, order: order.baseAddress))
        }
    }
}
