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

/// Content at an address, given to whoever asks later.
private struct InPlace: AsynchronousPageSource {
    let start: UInt

    func load(_ request: consuming PageRequest) {
        let (offset, count) = (request.offset, request.byteCount)
        request.complete(.memory(at: start + UInt(offset), count: count))
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
        #expect(words(try ask(slice, at: 0, count: 6 * pageBytes).bytes) == numbers(1..<3) + [0, 0, 0, 0])
        // Twice, so that a part of it is in the cache.
        let cached = try CachedSource(source(), of: ChunkCacheTests.image(), in: ChunkCacheTests.cache())
        for first in [5, 2] {
            let bytes = try ask(cached, at: first * pageBytes, count: 8 * pageBytes).bytes
            #expect(words(bytes) == numbers(first..<first + 8))
        }
        #expect(base.roomsWereEmpty)
    }

    /// What the other source has after the end of a part is not a part of it, however much it answers for.
    @Test func aSliceEndsWhereItEnds() throws {
        let range = try Mapping(anonymous: 16 * pageBytes).release()
        for page in 0..<16 { range.store(UInt8(page), at: page * pageBytes) }
        let source = ClosureSource<Never> { offset, _ in
            .memory(at: range.start + UInt(offset), count: 16 * pageBytes - offset)
        }
        let slice = try SourceSlice(source, pageBytes..<3 * pageBytes)
        #expect(words(try ask(slice, at: 0, count: 5 * pageBytes).bytes) == [1, 2, 0, 0, 0])
        #expect(try ask(slice, at: 0, count: pageBytes).reply != .zero)
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

    // MARK: Memory that cannot be read

    /// The failure policy decides, and not the source.
    @Test func memoryThatCannotBeReadIsNotLost() throws {
        let mapping = try Mapping(anonymous: 16 * pageBytes, protection: .none)
        let start = mapping.range.start
        func source() -> ClosureSource<Never> {
            ClosureSource { offset, pages in .memory(at: start + UInt(offset), count: pages.freeCapacity) }
        }
        let overlay = try OverlaySource(source(), extents: [0..<2 * pageBytes], over: NumberedSource())
        #expect(try ask(overlay, at: 0, count: 4 * pageBytes).reply == .memory(at: start, count: 2 * pageBytes))
        let cached = try CachedSource(source(), of: ChunkCacheTests.image(pages: 16), in: ChunkCacheTests.cache())
        #expect(try ask(cached, at: 0, count: 8 * pageBytes).reply == .memory(at: start, count: ChunkCacheTests.chunk))
        let verified = try VerifiedSource(source(), checksums(pages: 16))
        #expect(throws: VerifiedSource<ClosureSource<Never>>.Failure.self) { try ask(verified, at: 0) }
        let pages = try SharedPages(Memfd(count: 4 * pageBytes), from: source())
        #expect(throws: SharedMemorySource<ClosureSource<Never>>.Failure.self) { try ask(pages.source, at: 0) }
    }

    /// Pages that may be taken away are not, if their chunk is still to be loaded: a copy would find zeros there.
    @Test func pagesStayForTheirChunk() throws {
        let stock = try Stock(pages: 8)
        let source = stock.source
        let isFirst = Shared(Atomic<Bool>(true))
        let base = ClosureSource { (offset: Int, pages: inout OutputRawSpan) throws(Unavailable) -> PageReply in
            if isFirst.value.exchange(false, ordering: .relaxed) { throw Unavailable() }
            return source.load(offset: offset, into: &pages)
        }
        let cached = try CachedSource(base, of: ChunkCacheTests.image(pages: 8), in: ChunkCacheTests.cache())
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: cached)
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let expected = numbers(0..<8)
        #expect(Toucher.value { (0..<8).map { range.loadWord($0 * pageBytes) } } == expected)
        try pager.stop(.poison)
        #expect(pager.statistics.pagesMoved == 0)
        #expect(words(try ask(cached, at: 0).bytes) == numbers(0..<1))
    }

    /// Content that is verified is copied first: reading it in place would be a signal.
    @Test func requestedContentThatCannotBeReadFails() async {
        await #expect(processExitsWith: .success) {
            let content = try Mapping(anonymous: 16 * pageBytes, protection: .none)
            let start = content.range.start
            var checksums = PageChecksums()
            let page = [UInt8](repeating: 1, count: 16 * pageBytes)
            checksums.append(page.span.bytes)
            let source = try VerifiedSource(AsynchronousSource(InPlace(start: start)), checksums)
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let pager = try Pager(UserfaultFD(), source: source)
            let region = try pager.add(mapping.range, options: RegionOptions(failure: .poisonAtOnce))
            try pager.start()
            #expect(error { () throws(PagerError) in try pager.populate(region) } == .pagesFailed(16))
            try pager.stop(.poison)
        }
    }

    // MARK: Huge pages

    @Test(.requiresHugePages(1)) func aHugePageIsMadeOfParts() throws {
        let size = PageSize.twoMiB.bytes
        let file = try Memfd(count: size, hugePages: .twoMiB)
        let pages = try SharedPages(file, from: FewPages(most: 100))
        #expect(try ask(pages.source, at: 0, count: size).reply == .inFile(count: size))
        let range = try Mapping(file).release()
        #expect((0..<512).allSatisfy { range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) })
    }

    @Test(.requiresHugePages(1)) func aFailureInAHugePageIsTold() throws {
        let size = PageSize.twoMiB.bytes
        let source = ClosureSource { (offset: Int, pages: inout OutputRawSpan) throws(Unavailable) -> PageReply in
            guard offset < 7 * pageBytes else { throw Unavailable() }
            return pages.withRoom(pageBytes) { NumberedSource().load(offset: offset, into: &$0) }
        }
        let pages = try SharedPages(Memfd(count: size, hugePages: .twoMiB), from: source)
        #expect(throws: SharedMemorySource<ClosureSource<Unavailable>>.Failure.self) {
            try ask(pages.source, at: 0, count: size)
        }
    }
}
