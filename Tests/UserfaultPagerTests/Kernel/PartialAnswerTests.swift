import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A file that cannot be read after some page, the first time that it is asked.
private struct RecoveringFile: ~Copyable, PageSource {
    private let source: FileSource
    private let descriptor: FileDescriptor
    private let byteCount: Int

    private init(_ source: consuming FileSource, _ descriptor: FileDescriptor, byteCount: Int) {
        self.source = source
        self.descriptor = descriptor
        self.byteCount = byteCount
    }

    static func make(pages: Int, goodPages: Int) throws -> RecoveringFile {
        let raw = try numberedFile(pages: pages).release()
        let source = try FileSource(adopting: raw)
        let descriptor = FileDescriptor(rawValue: raw)
        try descriptor.resize(to: Int64(goodPages * pageBytes))
        return RecoveringFile(source, descriptor, byteCount: pages * pageBytes)
    }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(FileSource.Failure) -> PageReply {
        let reply = try source.load(offset: offset, into: &pages)
        try? descriptor.resize(to: Int64(byteCount))
        for page in stride(from: 0, to: byteCount, by: pageBytes) {
            withUnsafeBytes(of: NumberedSource.word(page)) {
                _ = try? descriptor.writeAll(toAbsoluteOffset: Int64(page), $0)
            }
        }
        return reply
    }
}

/// Numbered pages, as many at a time as it likes; keeps whether each room was empty.
private final class FewPages: PageSource {
    private let most: Int
    private let wasEmpty = Atomic<Bool>(true)

    init(most: Int) { self.most = most }

    var roomsWereEmpty: Bool { wasEmpty.load(ordering: .relaxed) }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        if pages.byteCount > 0 { wasEmpty.store(false, ordering: .relaxed) }
        return pages.withRoom(most * pageBytes) { NumberedSource().load(offset: offset, into: &$0) }
    }
}

/// Sources that answer for less than they were asked for, and those that are made of them.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct PartialAnswerTests {
    private func words(_ bytes: [UInt8]) -> [UInt64] {
        stride(from: 0, to: bytes.count, by: pageBytes).map { at in
            bytes[at..<at + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    private func numbers(_ pages: Range<Int>) -> [UInt64] { pages.map { NumberedSource.word($0 * pageBytes) } }

    private func checksums(pages: Int) -> PageChecksums {
        var checksums = PageChecksums()
        for page in 0..<pages {
            let content = [UInt64](repeating: NumberedSource.word(page * pageBytes), count: pageBytes / 8)
            checksums.append(content.span.bytes)
        }
        return checksums
    }

    /// What is read again after an error is the page that failed, and not one after it.
    @Test func aReadErrorInAChunkLeavesNoWrongContent() throws {
        let cached = try CachedSource(
            RecoveringFile.make(pages: 16, goodPages: 2), of: ChunkCacheTests.image(pages: 16),
            in: ChunkCache(.init(chunkBytes: 16 * pageBytes)))
        #expect(words(try ask(cached, at: 0, count: 16 * pageBytes).bytes) == numbers(0..<16))
        #expect(words(try ask(cached, at: 3 * pageBytes, count: pageBytes).bytes) == numbers(3..<4))
    }

    @Test func chunksOfVerifiedPagesComeInParts() throws {
        let base = FewPages(most: 1)
        let cache = try ChunkCacheTests.cache()
        let verified = try VerifiedSource(
            ClosureSource<Never> { base.load(offset: $0, into: &$1) }, checksums(pages: 16))
        let cached = try CachedSource(verified, of: ChunkCacheTests.image(pages: 16), in: cache)
        #expect(words(try ask(cached, at: 0, count: 16 * pageBytes).bytes) == numbers(0..<16))
        #expect(cache.statistics.passedOn == 0)
        #expect(base.roomsWereEmpty)
    }

    @Test func everyRoomIsEmpty() throws {
        let base = FewPages(most: 2)
        func source() -> ClosureSource<Never> { ClosureSource { base.load(offset: $0, into: &$1) } }
        let overlay = try OverlaySource(source(), extents: [2 * pageBytes..<4 * pageBytes], over: source())
        #expect(words(try ask(overlay, at: 0, count: 6 * pageBytes).bytes) == numbers(0..<6))
        let slice = try SourceSlice(source(), pageBytes..<3 * pageBytes)
        #expect(words(try ask(slice, at: 0, count: 6 * pageBytes).bytes) == numbers(1..<3))
        // Twice, so that a part of it is in the cache.
        let cached = try CachedSource(source(), of: ChunkCacheTests.image(), in: ChunkCacheTests.cache())
        for first in [5, 2] {
            let bytes = try ask(cached, at: first * pageBytes, count: 8 * pageBytes).bytes
            #expect(words(bytes) == numbers(first..<first + 8))
        }
        #expect(base.roomsWereEmpty)
    }

    /// What a source has appended before it failed is no content.
    @Test func whatWasAppendedBeforeAFailureDoesNotCount() throws {
        let failing = ClosureSource { (offset: Int, pages: inout OutputRawSpan) throws(Unavailable) -> PageReply in
            _ = pages.withRoom(pageBytes) { NumberedSource().load(offset: 0, into: &$0) }
            throw Unavailable()
        }
        let overlay = try OverlaySource(failing, extents: [2 * pageBytes..<8 * pageBytes], over: NumberedSource())
        #expect(words(try ask(overlay, at: 0, count: 4 * pageBytes).bytes) == numbers(0..<2))
        #expect(throws: (any Error).self) { try ask(overlay, at: 7 * pageBytes, count: 2 * pageBytes) }
    }
}
