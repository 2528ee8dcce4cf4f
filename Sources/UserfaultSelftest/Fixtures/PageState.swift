import CSelftestSupport
import Glibc
import SystemPackage
package import UserfaultFD

/// Everything that can be seen of a page from outside: what an operation that fails must leave as it was.
package struct PageState: Equatable, Sendable {
    package var view: PagemapEntry
    package var viewContents: Bytes?
    package var aliasContents: Bytes?
    /// What `pread(2)` reads, which sees a hole where the page was lost from the page cache but is still mapped.
    package var fileContents: Bytes?
    package var aliasFrame: PageFrame?
    package var blocks: Int
    package var freeBlocks: UInt64?
    package var taint: UInt64

    /// Looks at a page of an area.
    ///
    /// - Parameters:
    ///   - readsView: Whether the view's contents are read; not where that would block.
    ///   - aliasIsMapped: Whether the file has the page, so that the alias may be read without making one.
    package init(_ area: Area, page: Int, readsView: Bool = true, aliasIsMapped: Bool = true) throws {
        // Contents first: reading sets accessed bits and may map the alias.
        viewContents = readsView ? Self.bytes(area.page(page)) : nil
        let alias = aliasIsMapped ? area.alias?.page(page) : nil
        if let alias { aliasContents = Self.bytes(alias) }
        fileContents = area.file == nil ? nil : Bytes(try area.readFile(page))
        view = try PagemapEntry(of: area.address(page))
        if let alias, try PagemapEntry(of: alias.start).frame != 0 { aliasFrame = try PageFrame(of: alias.start) }
        blocks = try area.blocks()
        freeBlocks = area.isAloneOnFileSystem ? try area.fileSystem()?.freeBlocks : nil
        taint = UserfaultSelftest.taint()
    }

    /// A page's bytes, compared at the speed of C also in a debug build.
    package struct Bytes: Equatable, Sendable {
        let bytes: [UInt8]

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        package static func == (left: Bytes, right: Bytes) -> Bool {
            left.bytes.count == right.bytes.count && memcmp(left.bytes, right.bytes, left.bytes.count) == 0
        }
    }

    private static func bytes(_ range: AddressRange) -> Bytes {
        Bytes(Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: range.start), count: range.count)))
    }

    /// Fails where anything differs from an earlier look.
    package func expectUnchanged(
        since before: PageState, by what: String, file: String = #fileID, line: Int = #line
    ) throws(CaseFailure) {
        try expectEqual(taint, before.taint, "taint after \(what)", file: file, line: line)
        try expectEqual(view, before.view, "page table entry of the view after \(what)", file: file, line: line)
        try expect(
            viewContents == before.viewContents, "contents of the view unchanged by \(what)", file: file, line: line)
        try expect(
            aliasContents == before.aliasContents, "contents of the alias unchanged by \(what)", file: file, line: line)
        try expect(
            fileContents == before.fileContents, "what pread reads unchanged by \(what)", file: file, line: line)
        try expectEqual(
            aliasFrame?.number, before.aliasFrame?.number, "page frame after \(what)", file: file, line: line)
        try expectEqual(
            aliasFrame?.mapCount, before.aliasFrame?.mapCount, "map count after \(what)", file: file, line: line)
        let lasting: PageFrame.Flags = [.upToDate, .dirty, .mapped, .anonymous, .swapBacked, .huge, .hardwarePoison]
        try expectEqual(
            aliasFrame?.flags.intersection(lasting).rawValue, before.aliasFrame?.flags.intersection(lasting).rawValue,
            "page flags after \(what)", file: file, line: line)
        try expectEqual(blocks, before.blocks, "st_blocks after \(what)", file: file, line: line)
        try expectEqual(freeBlocks, before.freeBlocks, "statfs free blocks after \(what)", file: file, line: line)
    }
}

/// What `fstatfs(2)` says of the file system that a file lies on.
package struct FileSystem: Equatable, Sendable {
    package let blockSize: UInt64
    package let blocks: UInt64
    package let freeBlocks: UInt64

    package init(of file: borrowing Memfd) throws {
        var status = css_statfs_answer()
        let answer = file.withUnsafeDescriptor { css_fstatfs($0.rawValue, &status) }
        try expectEqual(answer, 0, "answer of fstatfs")
        blockSize = status.block_size
        blocks = status.blocks
        freeBlocks = status.free_blocks
    }
}

extension Area {
    /// The file system that the file lies on.
    package func fileSystem() throws -> FileSystem? {
        guard file != nil else { return nil }
        return try FileSystem(of: file!)
    }
}
