import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("CRIU's pagemap")
struct CRIUPagemapTests {
    private static let size = UInt64(PageSize.base.bytes)

    private static func pagemap(_ runs: [(UInt64, UInt64, UInt64?)], pagesID: UInt64 = 1) throws -> CRIUPagemap {
        try CRIUPagemap(CRIUImageWriter.pagemap(runs, pagesID: pagesID)[...])
    }

    @Test("tells where pages are, in the order of the file")
    func places() throws {
        let size = Self.size
        let pagemap = try Self.pagemap([(size, 2, 4), (8 * size, 3, 6), (20 * size, 1, 2), (30 * size, 1, 1)])
        #expect(pagemap.pagesID == 1)
        #expect(pagemap.bytesInFile == 5 * size)
        let places = pagemap.runs.map(\.place)
        #expect(places == [.file(offset: 0), .file(offset: 2 * size), .server, .parent])
        #expect(pagemap.runs.map(\.isLazy) == [false, true, true, false])
        #expect(pagemap.runs.map(\.start) == [size, 8 * size, 20 * size, 30 * size])
    }

    @Test("joins runs that follow each other in memory and in the file")
    func joins() throws {
        let size = Self.size
        let pagemap = try Self.pagemap([(size, 256, 6), (257 * size, 256, 6), (513 * size, 1, 4), (514 * size, 1, 6)])
        #expect(pagemap.runs.map(\.count) == [512 * size, size, size])
        #expect(pagemap.runs[2].place == .file(offset: 513 * size))
    }

    @Test("knows the flags of before there were flags")
    func oldFlags() throws {
        var writer = CRIUImageWriter(magic: 0x5608_4025)
        writer.append([(1, .number(7))])
        writer.append([(1, .number(Self.size)), (2, .number(1))])
        writer.append([(1, .number(4 * Self.size)), (2, .number(1)), (3, .number(1))])
        let pagemap = try CRIUPagemap(writer.bytes[...])
        #expect(pagemap.runs.map(\.place) == [.file(offset: 0), .parent])
    }

    @Test("finds the run of an address, or the next")
    func search() throws {
        let size = Self.size
        let pagemap = try Self.pagemap([(size, 2, 4), (8 * size, 3, 4)])
        #expect([0, size, 2 * size, 3 * size, 10 * size, 11 * size].map(pagemap.index) == [0, 0, 0, 1, 1, 2])
    }

    @Test(
        "refuses ranges that cannot be",
        arguments: [
            [(size, 0, 4)], [(size + 1, 1, 4)], [(4 * size, 2, 4), (5 * size, 1, 4)], [(4 * size, 1, 4), (size, 1, 4)],
            [(size, UInt64.max, 4)], [(0, UInt64.max / size, 4)], [(UInt64.max - size + 1, 1, 4)],
            [(0, 1 << 50, 4), (1 << 62, 1 << 50, 4), (1 << 63, 1, 4)],
        ] as [[(UInt64, UInt64, UInt64?)]])
    func badRanges(runs: [(UInt64, UInt64, UInt64?)]) {
        #expect(throws: CRIUImageError.Reason.badRange) { try Self.pagemap(runs) }
    }

    @Test("refuses pages that nobody has: they are not zeros")
    func nowhere() {
        #expect(throws: CRIUImageError.Reason.nowhere(address: 4096)) { try Self.pagemap([(4096, 1, 0)]) }
        #expect(throws: CRIUImageError.Reason.nowhere(address: 4096)) { try Self.pagemap([(4096, 1, 8)]) }
    }

    @Test("refuses what is no pagemap", arguments: [[], [1, 2, 3], CRIUImageWriter.processTree([1])])
    func otherFiles(bytes: [UInt8]) {
        #expect(throws: CRIUImageError.Reason.badMagic) { try CRIUPagemap(bytes[...]) }
    }

    @Test("refuses a file that is cut anywhere but after an entry")
    func cut() throws {
        let whole = CRIUImageWriter.pagemap([(Self.size, 300, 6)])
        let head = CRIUImageWriter.pagemap([])
        for count in 0..<whole.count where count != head.count {
            #expect(throws: CRIUImageError.Reason.self, "\(count) bytes") { try CRIUPagemap(whole[..<count]) }
        }
        #expect(try CRIUPagemap(whole[..<head.count]).runs.isEmpty)
    }

    @Test("does not trust a length")
    func lengths() {
        let head = Array(CRIUImageWriter.pagemap([]))
        #expect(throws: CRIUImageError.Reason.badMessage) { try CRIUPagemap((head + [255, 255, 255, 255])[...]) }
        let long: [UInt8] = [11, 0, 0, 0, 0x0a] + CRIUImageWriter.varint(UInt64.max)
        #expect(throws: CRIUImageError.Reason.badMessage) { try CRIUPagemap((head + long)[...]) }
        let endless: [UInt8] = [12, 0, 0, 0, 8] + [UInt8](repeating: 0xff, count: 11)
        #expect(throws: CRIUImageError.Reason.badMessage) { try CRIUPagemap((head + endless)[...]) }
    }
}

@Suite("CRIU's task images")
struct CRIUTaskFilesTests {
    @Test("name the tasks")
    func tasks() throws {
        #expect(try CRIUProcessTree.tasks(CRIUImageWriter.processTree([7, 9])[...]) == [7, 9])
        #expect(throws: CRIUImageError.Reason.missingField("pid")) {
            try CRIUProcessTree.tasks(CRIUImageWriter.processTree([0])[...])
        }
        #expect(throws: CRIUImageError.Reason.missingField("pid")) {
            try CRIUProcessTree.tasks(CRIUImageWriter.processTree([1 << 40])[...])
        }
        #expect(throws: CRIUImageError.Reason.badMessage) {
            try CRIUProcessTree.tasks(CRIUImageWriter.processTree([])[...])
        }
    }

    @Test("name the mappings, but for the kernel's own")
    func mappings() throws {
        let all = CRIUImageWriter.memoryMap([
            CRIUImageWriter.mapping(0x1000, 0x3000), CRIUImageWriter.mapping(0x3000, 0x4000),
            CRIUImageWriter.mapping(0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000),
        ])
        #expect(
            try CRIUMemoryMap.mappings(all[...]) == [
                AddressRange(start: 0x1000, end: 0x3000), AddressRange(start: 0x3000, end: 0x4000),
            ])
    }

    @Test(
        "name mappings that can be, in order",
        arguments: [
            [(0x1000, 0x1000)], [(0x2000, 0x1000)], [(0x1001, 0x3000)], [(0x1000, 0x2001)],
            [(0x1000, 0x3000), (0x2000, 0x4000)],
        ] as [[(UInt64, UInt64)]])
    func badMappings(ranges: [(UInt64, UInt64)]) {
        let bytes = CRIUImageWriter.memoryMap(ranges.map { CRIUImageWriter.mapping($0.0, $0.1) })
        #expect(throws: CRIUImageError.Reason.badRange) { try CRIUMemoryMap.mappings(bytes[...]) }
    }

    @Test("tell their version")
    func version() throws {
        try CRIUProcessTree.check(inventory: CRIUImageWriter.inventory()[...])
        try CRIUProcessTree.check(inventory: CRIUImageWriter.inventory(version: 1)[...])
        #expect(throws: CRIUImageError.Reason.version(3)) {
            try CRIUProcessTree.check(inventory: CRIUImageWriter.inventory(version: 3)[...])
        }
    }
}

@Suite("Where pages are")
struct CRIUPageIndexTests {
    private static let size = UInt64(PageSize.base.bytes)

    private static func index(_ levels: [[(UInt64, UInt64, UInt64?)]]) throws -> CRIUPageIndex {
        CRIUPageIndex(try levels.map { try CRIUPagemap(CRIUImageWriter.pagemap($0)[...]) })
    }

    private static func find(_ index: CRIUPageIndex, page: UInt64, limit: Int = 100) throws -> CRIUPageIndex.Found {
        try index.find(page * size, limit: limit * Int(size))
    }

    @Test("zeros lie between what was dumped")
    func zeros() throws {
        let size = Int(Self.size)
        let index = try Self.index([[(2 * Self.size, 3, 6), (10 * Self.size, 1, 2)]])
        #expect(try Self.find(index, page: 0) == .init(place: .zeros, count: 2 * size))
        #expect(try Self.find(index, page: 0, limit: 1) == .init(place: .zeros, count: size))
        #expect(try Self.find(index, page: 3) == .init(place: .file(level: 0, offset: size), count: 2 * size))
        #expect(try Self.find(index, page: 5) == .init(place: .zeros, count: 5 * size))
        #expect(try Self.find(index, page: 10) == .init(place: .server, count: size))
        #expect(try Self.find(index, page: 11) == .init(place: .zeros, count: 100 * size))
        #expect(index.lazyPages == 4)
    }

    @Test("parents have what did not change")
    func parents() throws {
        let size = Int(Self.size)
        let index = try Self.index([
            [(0, 10, 3), (10 * Self.size, 2, 6)], [(0, 4, 4), (4 * Self.size, 6, 1)], [(2 * Self.size, 10, 4)],
        ])
        #expect(try Self.find(index, page: 1) == .init(place: .file(level: 1, offset: size), count: 3 * size))
        #expect(try Self.find(index, page: 5) == .init(place: .file(level: 2, offset: 3 * size), count: 5 * size))
        #expect(try Self.find(index, page: 11) == .init(place: .file(level: 0, offset: size), count: size))
    }

    @Test("a page that a parent does not have is no zeros")
    func missingInParent() throws {
        let index = try Self.index([[(0, 10, 3)], [(2 * Self.size, 1, 4)]])
        #expect(throws: CRIUImageError.Reason.noParent(address: 0)) { try Self.find(index, page: 0) }
        #expect(throws: CRIUImageError.Reason.noParent(address: 5 * Self.size)) { try Self.find(index, page: 5) }
        let alone = try Self.index([[(0, 10, 3)]])
        #expect(throws: CRIUImageError.Reason.noParent(address: 0)) { try Self.find(alone, page: 0) }
    }

    @Test("what is left to the daemon, by range")
    func lazyRanges() throws {
        let index = try Self.index([[(0, 2, 6), (2 * Self.size, 2, 2), (4 * Self.size, 1, 4), (8 * Self.size, 4, 6)]])
        let page = UInt(Self.size)
        let all = index.lazyRanges(in: AddressRange(start: 0, count: Int.max))
        #expect(all == [AddressRange(start: 0, end: 4 * page), AddressRange(start: 8 * page, end: 12 * page)])
        #expect(
            index.lazyRanges(in: AddressRange(start: page, end: 9 * page)) == [
                AddressRange(start: page, end: 4 * page), AddressRange(start: 8 * page, end: 9 * page),
            ])
        #expect(index.lazyRanges(in: AddressRange(start: 4 * page, end: 8 * page)).isEmpty)
    }
}
