import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Chunks in memory, between a source and its pagers.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ChunkCacheTests {
    static let chunk = 4 * pageBytes

    /// A cache of small chunks.
    static func cache(
        chunks: Int = 64, in folder: ScratchFolder? = nil, diskSets: Int = 64,
        report: (@Sendable (ChunkCache.Report) -> Void)? = nil
    ) throws -> ChunkCache {
        try ChunkCache(
            .init(
                chunkBytes: chunk, memoryBytes: chunks * chunk, folder: folder?.path,
                diskBytes: diskSets * ChunkFile.minimumBytes(chunkBytes: chunk), report: report))
    }

    static func image(_ name: String = "image", pages: Int = 64, revision: String = "1") throws -> ImageIdentity {
        try ImageIdentity(name: name, byteCount: pages * pageBytes, revision: revision)
    }

    @Sendable static func word(_ page: Int) -> UInt64 { NumberedSource.word(page * pageBytes) }

    private func words(_ bytes: [UInt8]) -> [UInt64] {
        stride(from: 0, to: bytes.count, by: pageBytes).map { at in
            bytes[at..<at + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    // MARK: Sources that answer when they are asked

    @Test func aChunkIsLoadedOnce() throws {
        let source = try CachedSource(CountedSource(), of: Self.image(), in: Self.cache())
        #expect(words(try ask(source, at: pageBytes).bytes) == [Self.word(1)])
        #expect(words(try ask(source, at: 0, count: Self.chunk).bytes) == (0..<4).map(Self.word))
        #expect(words(try ask(source, at: 2 * pageBytes, count: 7 * pageBytes).bytes) == (2..<9).map(Self.word))
    }

    @Test func sourcesOfOneImageShareIt() throws {
        let cache = try Self.cache()
        let (first, second) = (CountedSource(), CountedSource())
        _ = try serveEveryPage(
            of: CachedSource(first, of: Self.image(), in: cache), pages: 64, populates: false, Self.word)
        _ = try serveEveryPage(
            of: CachedSource(second, of: Self.image(), in: cache), pages: 64, populates: true, Self.word)
        #expect(first.count == 16)
        #expect(second.count == 0)
        #expect(cache.statistics.loads == 16)
    }

    @Test func anotherImageIsAnother() throws {
        let cache = try Self.cache()
        for (name, pages, revision) in [("a", 64, "1"), ("a", 64, "2"), ("a", 60, "1"), ("b", 64, "1"), ("1a", 64, "")]
        {
            let source = CountedSource()
            let cached = try CachedSource(
                source, of: Self.image(name, pages: pages, revision: revision), in: cache)
            #expect(words(try ask(cached, at: 0).bytes) == [Self.word(0)])
            #expect(source.count == 1)
        }
    }

    /// Names are bytes: two that Unicode takes for one may be two files.
    @Test func namesAreBytes() throws {
        let cache = try Self.cache()
        let names = ["/mnt/\u{e9}", "/mnt/e\u{301}"]
        #expect(names[0] == names[1])
        for (index, name) in names.enumerated() {
            let content = [UInt8](repeating: UInt8(index + 1), count: pageBytes)
            let source = try CachedSource(BytesSource(content.span.bytes), of: Self.image(name, pages: 1), in: cache)
            var bytes = [UInt8](repeating: 0, count: pageBytes)
            bytes.withUnsafeMutableBytes { room in
                var pages = OutputRawSpan(buffer: room, initializedCount: 0)
                _ = source.load(offset: 0, into: &pages)
                #expect(pages.finalize(for: room) == pageBytes)
            }
            #expect(bytes == content)
        }
    }

    /// The rest of the last chunk, and all behind it, is zeros, which no source is asked for.
    @Test func anImageEnds() throws {
        let source = CountedSource()
        let cached = try CachedSource(source, of: Self.image(pages: 6), in: Self.cache())
        let all = try ask(cached, at: 0, count: 12 * pageBytes)
        #expect(words(all.bytes) == (0..<6).map(Self.word) + [0, 0, 0, 0, 0, 0])
        #expect(try ask(cached, at: 6 * pageBytes).reply == .zeros(count: pageBytes))
        #expect(try ask(cached, at: 8 * pageBytes, count: Self.chunk).reply == .zeros(count: Self.chunk))
        #expect(source.count == 2)
    }

    @Test func zerosStayZeros() throws {
        let cache = try Self.cache()
        let zeros = ClosureSource { (_: Int, _: inout OutputRawSpan) throws(Never) -> PageReply in .zero }
        let cached = try CachedSource(zeros, of: Self.image(), in: cache)
        #expect(try ask(cached, at: 0, count: 2 * Self.chunk).reply == .zeros(count: 2 * Self.chunk))
        let statistics = try serveEveryPage(of: cached, pages: 64, populates: true) { _ in 0 }
        #expect(statistics.pagesCopied == 0)
        #expect(cache.statistics.loads == 16)
    }

    /// Each page but one, for a thread at each.
    @Test func aBadPageCostsNoOther() throws {
        let source = ClosureSource { (offset: Int, pages: inout OutputRawSpan) throws(Unavailable) -> PageReply in
            let bad = 5 * pageBytes
            guard offset != bad else { throw Unavailable() }
            let end = offset < bad ? min(bad, offset + pages.freeCapacity) : offset + pages.freeCapacity
            return pages.withRoom(end - offset) { NumberedSource().load(offset: offset, into: &$0) }
        }
        let cached = try CachedSource(source, of: Self.image(), in: Self.cache())
        for page in (0..<12) where page != 5 {
            #expect(words(try ask(cached, at: page * pageBytes).bytes) == [Self.word(page)])
        }
        #expect(throws: Unavailable.self) { try ask(cached, at: 5 * pageBytes) }
        #expect(words(try ask(cached, at: 3 * pageBytes, count: Self.chunk).bytes) == [Self.word(3), Self.word(4)])
    }

    @Test func threadsThatWantOneChunkLoadItOnce() throws {
        let gate = Gate()
        let cache = try Self.cache()
        let cached = try CachedSource(GatedSource(gate: gate), of: Self.image(), in: cache)
        let touchers = (0..<8).map { page in
            Toucher { (try? ask(cached, at: page % 4 * pageBytes).bytes).map(words) == [Self.word(page % 4)] }
        }
        #expect(gate.waitUntilReached())
        gate.open()
        for toucher in touchers { #expect(toucher.value() == true) }
        #expect(cache.statistics.loads == 1)
    }

    /// Four chunks of memory, and threads that want forty: chunks go while others read them.
    @Test func fewPlacesServeManyThreads() throws {
        let cache = try Self.cache(chunks: 4)
        let cached = try CachedSource(NumberedSource(), of: Self.image(pages: 160), in: cache)
        let touchers = (0..<8).map { thread in
            Toucher {
                (0..<300).allSatisfy { turn in
                    let page = (turn * 37 + thread * 11) % 160
                    return (try? ask(cached, at: page * pageBytes).bytes).map(words) == [Self.word(page)]
                }
            }
        }
        for toucher in touchers { #expect(toucher.value() == true) }
        #expect(cache.state.withLock { $0.table.unpinned } == 4)
    }

    // MARK: Sources that answer later

    @Test(arguments: [false, true])
    func requestsAreKept(populates: Bool) throws {
        let cache = try Self.cache()
        let (first, second) = (NumberedLaterSource(), NumberedLaterSource())
        _ = try serveEveryPage(
            of: CachedSource(AsynchronousSource(first), of: Self.image(), in: cache), pages: 64,
            populates: populates, Self.word)
        let statistics = try serveEveryPage(
            of: CachedSource(AsynchronousSource(second), of: Self.image(), in: cache), pages: 64,
            populates: populates, Self.word)
        #expect(statistics.failures == 0)
        #expect(first.count == 16)
        #expect(second.count == 0)
    }

    @Test func shortAnswersAreCompleted() throws {
        let source = NumberedLaterSource(most: pageBytes)
        let cached = try CachedSource(AsynchronousSource(source), of: Self.image(), in: Self.cache())
        let statistics = try serveEveryPage(of: cached, pages: 64, populates: true, Self.word)
        #expect(statistics.failures == 0)
        #expect(source.count == 64)
    }

    /// A pager goes before its chunk has come, and its source is about to fail the request that nobody wants.
    @Test func aChunkThatOnePagerGaveUpComesForTheNext() throws {
        let cache = try Self.cache()
        let box = Mailbox()
        let mapping = try Mapping(anonymous: Self.chunk)
        let pager = try Pager(
            UserfaultFD(), source: CachedSource(AsynchronousSource(LaterSource(box: box)), of: Self.image(), in: cache))
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.prefetch(region, count: pageBytes)
        #expect(wait { box.received.load(ordering: .acquiring) == 1 })
        let letters = box.takeAll()
        #expect(!letters[0].isCancelled)
        try pager.stop(.poison)
        #expect(letters[0].isCancelled)
        let next = NumberedLaterSource()
        _ = try serveEveryPage(
            of: CachedSource(AsynchronousSource(next), of: Self.image(), in: cache), pages: 4, populates: false,
            Self.word)
        #expect(next.count == 1)
        letters[0].take().fail()
        #expect(cache.state.withLock { $0.table.unpinned } == 64)
    }

    /// Pagers that want the same chunk, of which the first one's source fails.
    @Test func aFailureOfOneSourceIsNotAnothers() throws {
        let cache = try Self.cache()
        let (failing, good) = (NumberedLaterSource(isHeld: true), NumberedLaterSource())
        let mapping = try Mapping(anonymous: Self.chunk)
        let pager = try Pager(
            UserfaultFD(), source: CachedSource(AsynchronousSource(failing), of: Self.image(), in: cache))
        let region = try pager.add(mapping.range)
        try pager.start()
        try pager.prefetch(region, count: pageBytes)
        #expect(wait { failing.count == 1 })
        let second = Toucher {
            try? serveEveryPage(
                of: CachedSource(AsynchronousSource(good), of: Self.image(), in: cache), pages: 1, populates: false,
                Self.word)
        }
        #expect(
            wait { cache.state.withLock { $0.loads.values.contains { $0.state.withLock { $0.requests.count == 2 } } } })
        failing.release(failing: true)
        #expect(second.value()??.failures == 0)
        try pager.stop(.poison)
    }

    /// A thread's page goes past a cache that is full of chunks on their way, and its chunk comes later.
    @Test func aChunkWithoutRoomIsLoadedLater() throws {
        let cache = try Self.cache(chunks: 4)
        let places = cache.state.withLock { state in (0..<4).compactMap { _ in state.table.take() } }
        let source = NumberedLaterSource()
        let cached = try CachedSource(AsynchronousSource(source), of: Self.image(), in: cache)
        let mapping = try Mapping(anonymous: 2 * Self.chunk)
        let pager = try Pager(UserfaultFD(), source: cached)
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        #expect(Toucher.value { range.loadWord(pageBytes) } == Self.word(1))
        #expect(Toucher.value { range.loadWord(2 * pageBytes) } == Self.word(2))
        #expect(cache.statistics.passedOn == 2)
        for place in places { cache.unpin(place) }
        #expect(wait { cache.statistics.loads == 1 && cache.state.withLock { $0.loads.isEmpty } })
        #expect(Toucher.value { range.loadWord(3 * pageBytes) } == Self.word(3))
        #expect(source.count == 3)
        try pager.stop(.poison)
    }

    /// Threads that outrun a cache leave it more to load than it has memory for.
    @Test func whatIsLoadedLaterIsBounded() throws {
        let cache = try Self.cache(chunks: 4)
        let places = cache.state.withLock { state in (0..<4).compactMap { _ in state.table.take() } }
        let chunks = 3 * cache.keepingLimit
        let cached = try CachedSource(
            AsynchronousSource(NumberedLaterSource()), of: Self.image(pages: 4 * chunks), in: cache)
        let answers = Mutex(0)
        for chunk in 0..<chunks {
            let work = AnsweredOnce(isCancelled: { false }) { reply in
                if case .memory? = reply { answers.withLock { $0 += 1 } }
            }
            cached.hand(PageRequest(work, offset: chunk * Self.chunk, byteCount: pageBytes, priority: .demand))
        }
        #expect(wait { answers.withLock(\.self) == chunks })
        #expect(cache.state.withLock { $0.keeping.count } == cache.keepingLimit)
        for place in places { cache.unpin(place) }
        #expect(cache.flush(within: .seconds(60)))
        #expect(cache.statistics.loads == cache.keepingLimit)
    }

    // MARK: Limits

    @Test func limitsAreChecked() {
        let bad: [ChunkCache.Configuration] = [
            .init(chunkBytes: 100), .init(chunkBytes: 0), .init(memoryBytes: 1 << 16), .init(memoryBytes: .max),
            .init(folder: "/tmp", diskBytes: 1000),
        ]
        for configuration in bad {
            #expect(error { () throws(PagerError) in _ = try ChunkCache(configuration) } != nil)
        }
        let missing = ChunkCache.Configuration(folder: "/nonexistent")
        #expect(
            error { () throws(PagerError) in _ = try ChunkCache(missing) }
                == .file(.noSuchFileOrDirectory, path: "/nonexistent"))
        for length in [-1, Int.max] {
            let refusal = error { () throws(PagerError) in
                _ = try ImageIdentity(name: "image", byteCount: length, revision: "")
            }
            #expect(refusal?.description.contains("the length of an image") == true)
        }
        let name = String(repeating: "x", count: 901)
        #expect(
            error { () throws(PagerError) in _ = try ImageIdentity(name: name, byteCount: 1, revision: "") } != nil)
    }

    /// A page at a time, at once: a chunk of many takes no more stack than one of few.
    @Test
    func shortAnswersTakeNoStack() async {
        await #expect(processExitsWith: .success) {
            let count = 16 << 20
            let cache = try ChunkCache(.init(chunkBytes: count, memoryBytes: 4 * count))
            let image = try ImageIdentity(name: "image", byteCount: count, revision: "1")
            let source = NumberedLaterSource(most: pageBytes)
            _ = try serveEveryPage(
                of: CachedSource(AsynchronousSource(source), of: image, in: cache), pages: 1, populates: false,
                ChunkCacheTests.word)
            guard source.count == count / pageBytes else { exit(2) }
        }
    }

    /// The last offsets that there are end in no whole chunk.
    @Test(arguments: [1, 2, 3])
    func theLastOffsetsAreZeros(pages: Int) throws {
        let cached = try CachedSource(NumberedSource(), of: Self.image(), in: Self.cache())
        let offset = Int.max - (pages + 1) * pageBytes + 1
        #expect(try ask(cached, at: offset, count: pages * pageBytes).reply == .zeros(count: pages * pageBytes))
    }
}
