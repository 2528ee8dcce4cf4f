import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("Regions that a peer describes")
struct HandedRegionTests {
    private static let page = UInt64(PageSize.base.bytes)

    @Test("keep their numbers")
    func keeps() throws {
        let region = try HandedRegion(
            address: 16 * Self.page, byteCount: 4 * Self.page, offset: 8 * Self.page, pageBytes: Self.page)
        #expect(region.range == AddressRange(start: UInt(16 * Self.page), count: Int(4 * Self.page)))
        #expect(region.end == Int(12 * Self.page))
        #expect(region.pageSize == .base)
    }

    @Test(
        "are refused if their numbers make no memory",
        arguments: [
            (16 * page, 0, 0, page), (16 * page, .max, 0, page), (.max - page + 1, 2 * page, 0, page),
            (16 * page, page, .max, page), (16 * page, page, UInt64(Int.max) / page * page, page),
            (16 * page + 1, page, 0, page), (16 * page, page + 1, 0, page), (16 * page, page, 1, page),
            (16 * page, page, 0, 0), (16 * page, page, 0, page + 1), (16 * page, page, 0, .max),
            (16 * page, page, 0, 2 << 20), (1 << 56, page, 0, page), (1 << 62, 1 << 62, 0, page),
        ] as [(UInt64, UInt64, UInt64, UInt64)])
    func refuses(address: UInt64, count: UInt64, offset: UInt64, pageBytes: UInt64) {
        #expect(throws: HandoffError.self) {
            try HandedRegion(address: address, byteCount: count, offset: offset, pageBytes: pageBytes)
        }
    }

    @Test("are refused if they overlap, are too many, or none")
    func lists() throws {
        func region(_ page: UInt64, _ count: UInt64) throws -> HandedRegion {
            try HandedRegion(
                address: page * Self.page, byteCount: count * Self.page, offset: 0, pageBytes: Self.page)
        }
        try HandedRegion.check([try region(20, 1), try region(16, 4)], limits: HandoffLimits())
        #expect(throws: HandoffError.self) {
            try HandedRegion.check([try region(19, 1), try region(16, 4)], limits: HandoffLimits())
        }
        #expect(throws: HandoffError.tooManyRegions(limit: 1)) {
            try HandedRegion.check([try region(20, 1), try region(16, 4)], limits: HandoffLimits(regions: 1))
        }
        #expect(throws: HandoffError.self) { try HandedRegion.check([], limits: HandoffLimits()) }
    }
}
