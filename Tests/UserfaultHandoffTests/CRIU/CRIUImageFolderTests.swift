import Glibc
import Testing
import UserfaultFD
import UserfaultPager

@testable import UserfaultHandoff

/// A folder of images that a test writes.
final class CRIUTestFolder: Sendable {
    let path: String

    private static let names = [
        "inventory.img", "pstree.img", "mm-7.img", "pagemap-7.img", "pages-1.img", "parent", "lazy-pages.socket",
    ]

    init(_ files: [String: [UInt8]] = [:]) throws {
        var template = Array("/tmp/criu-images-XXXXX".utf8CString)
        template.insert(CChar(UInt8(ascii: "X")), at: template.count - 1)
        let made = try #require(mkdtemp(&template))
        path = String(cString: made)
        for (name, bytes) in files { try write(name, bytes) }
    }

    deinit {
        for name in Self.names { remove("\(path)/\(name)") }
        remove(path)
    }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try #require(fopen("\(path)/\(name)", "w"))
        defer { fclose(file) }
        #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    func link(parent: CRIUTestFolder) { #expect(symlink(parent.path, "\(path)/parent") == 0) }
}

@Suite("A folder of CRIU's images")
struct CRIUImageFolderTests {
    private static let size = UInt64(PageSize.base.bytes)
    private static let page = PageSize.base.bytes

    /// The images of task 7: one mapping of 16 pages from page 16 on, with these runs of pages.
    private static func folder(
        _ runs: [(UInt64, UInt64, UInt64?)], pages: [UInt8]
    ) throws -> CRIUTestFolder {
        try CRIUTestFolder([
            "inventory.img": CRIUImageWriter.inventory(), "pstree.img": CRIUImageWriter.processTree([7]),
            "mm-7.img": CRIUImageWriter.memoryMap([CRIUImageWriter.mapping(16 * size, 32 * size)]),
            "pagemap-7.img": CRIUImageWriter.pagemap(runs.map { ($0.0 * size, $0.1, $0.2) }), "pages-1.img": pages,
        ])
    }

    private static func content(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { [UInt8](repeating: $0, count: page) }
    }

    private static func load(_ source: CRIUImageSource, page: Int, count: Int) throws -> (PageReply, [UInt8]) {
        try withUnsafeTemporaryAllocation(byteCount: count * Self.page, alignment: 16) { room in
            var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
            let reply = try source.load(offset: page * Self.page, into: &pages)
            return (reply, Array(room.prefix(pages.finalize(for: room))))
        }
    }

    private static func load(_ folder: CRIUTestFolder, page: Int, count: Int) throws -> (
        reply: PageReply, bytes: [UInt8]
    ) {
        try load(CRIUImageSource(pages: CRIUImageFolder(path: folder.path).pages(of: 7)), page: page, count: count)
    }

    @Test("has pages, zeros between them, and the ranges that are left to the daemon")
    func whole() throws {
        let folder = try Self.folder([(16, 2, 6), (20, 1, 4), (24, 2, 6)], pages: Self.content([1, 2, 3, 4, 5]))
        let images = try CRIUImageFolder(path: folder.path)
        #expect(try images.tasks() == [7])
        let pages = try images.pages(of: 7)
        let page = Self.page
        #expect(pages.mappings == [AddressRange(start: UInt(16 * page), end: UInt(32 * page))])
        #expect(
            [0, 17, 18, 25].map { pages.extent(from: $0 * page) } == [
                16 * page..<18 * page, 16 * page..<18 * page, 24 * page..<26 * page, 24 * page..<26 * page,
            ])
        #expect(pages.extent(from: 26 * page) == nil)
        #expect(try Self.load(folder, page: 16, count: 4).bytes == Self.content([1, 2]))
        #expect(try Self.load(folder, page: 18, count: 2).reply == .zeros(count: 2 * page))
        #expect(try Self.load(folder, page: 19, count: 2).reply == .zeros(count: page))
        #expect(try Self.load(folder, page: 25, count: 1).bytes == Self.content([5]))
    }

    @Test("has parents, each with pages of its own")
    func parents() throws {
        let folder = try Self.folder([(16, 1, 6), (17, 2, 3)], pages: Self.content([9]))
        let middle = try Self.folder([(17, 1, 6), (18, 1, 3)], pages: Self.content([8]))
        let oldest = try Self.folder([(18, 1, 4)], pages: Self.content([7]))
        folder.link(parent: middle)
        middle.link(parent: oldest)
        #expect(try Self.load(folder, page: 16, count: 1).bytes == Self.content([9]))
        #expect(try Self.load(folder, page: 17, count: 2).bytes == Self.content([8]))
        #expect(try Self.load(folder, page: 18, count: 1).bytes == Self.content([7]))
    }

    @Test("is refused if a parent has no end")
    func endless() throws {
        let folder = try Self.folder([(16, 1, 6)], pages: Self.content([9]))
        folder.link(parent: folder)
        #expect(throws: CRIUImageError("parent", .tooManyParents)) {
            _ = try CRIUImageFolder(path: folder.path).pages(of: 7)
        }
    }

    @Test("is refused if pages are missing: in the file, in the parent, in the mappings")
    func missing() throws {
        let short = try Self.folder([(16, 2, 6)], pages: Self.content([1]))
        #expect(throws: CRIUImageError("pages-1.img", .truncated(bytes: Self.page, expected: 2 * Self.page))) {
            _ = try CRIUImageFolder(path: short.path).pages(of: 7)
        }
        let orphan = try Self.folder([(16, 1, 3)], pages: [])
        #expect(throws: CRIUImageError("pagemap", .noParent(address: 16 * Self.size))) {
            _ = try Self.load(orphan, page: 16, count: 1)
        }
        let unmapped = try Self.folder([(31, 2, 6)], pages: Self.content([1, 2]))
        #expect(throws: CRIUImageError.self) { _ = try CRIUImageFolder(path: unmapped.path).pages(of: 7) }
    }

    @Test("a page that only a server has is not zeros")
    func onServer() throws {
        let folder = try Self.folder([(16, 2, 2)], pages: [])
        #expect(throws: CRIUImageError("pagemap", .onServer(address: 17 * Self.size))) {
            _ = try Self.load(folder, page: 17, count: 1)
        }
    }

    @Test("a file that is cut while it is read fails, after the pages that are whole")
    func cutMeanwhile() throws {
        let folder = try Self.folder([(16, 3, 6)], pages: Self.content([1, 2, 3]))
        let source = CRIUImageSource(pages: try CRIUImageFolder(path: folder.path).pages(of: 7))
        #expect(truncate("\(folder.path)/pages-1.img", off_t(Self.page + 100)) == 0)
        #expect(try Self.load(source, page: 16, count: 3).1 == Self.content([1]))
        #expect(throws: CRIUImageError.self) { _ = try Self.load(source, page: 17, count: 2) }
    }

    @Test("is refused if a file is missing, or something else", arguments: ["inventory.img", "pstree.img", "mm-7.img"])
    func files(name: String) throws {
        let folder = try Self.folder([(16, 1, 6)], pages: Self.content([1]))
        #expect(unlink("\(folder.path)/\(name)") == 0)
        func read() throws {
            let images = try CRIUImageFolder(path: folder.path)
            _ = try (images.tasks(), images.pages(of: 7))
        }
        #expect(throws: CRIUImageError.self) { try read() }
        #expect(mkdir("\(folder.path)/\(name)", 0o700) == 0)
        #expect(throws: CRIUImageError(name, .notAFile)) { try read() }
        #expect(throws: CRIUImageError("\(folder.path)/pagemap-7.img", .notAFolder)) {
            _ = try CRIUImageFolder(path: "\(folder.path)/pagemap-7.img")
        }
    }
}
