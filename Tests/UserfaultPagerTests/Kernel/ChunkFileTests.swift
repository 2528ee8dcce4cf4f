import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Chunks on disk: what crashes, other processes and full disks leave there.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ChunkFileTests {
    private let folder: ScratchFolder

    init() throws { folder = try ScratchFolder() }

    /// Serves an image by a cache of its own, as the next process would.
    ///
    /// - Returns: What the cache did.
    @discardableResult
    private func serve(
        _ source: NumberedLaterSource, pages: Int = 64, in folder: ScratchFolder? = nil, chunks: Int = 64,
        diskSets: Int = 64,
        image: String = "image", report: (@Sendable (ChunkCache.Report) -> Void)? = nil
    ) throws -> ChunkCache.Statistics {
        let place = folder ?? self.folder
        let cache = try ChunkCacheTests.cache(chunks: chunks, in: place, diskSets: diskSets, report: report)
        let identity = try ChunkCacheTests.image(image, pages: pages)
        let cached = try CachedSource(AsynchronousSource(source), of: identity, in: cache)
        let statistics = try serveEveryPage(of: cached, pages: pages, populates: true, ChunkCacheTests.word)
        #expect(statistics.failures == 0)
        #expect(cache.flush(within: .seconds(20)))
        return cache.statistics
    }

    @Test func theNextProcessAsksForNothing() throws {
        #expect(try serve(NumberedLaterSource()).writes == 16)
        let source = NumberedLaterSource()
        #expect(try serve(source).diskHits == 16)
        #expect(source.count == 0)
    }

    /// More is loaded than memory holds: what is loaded ahead waits until the disk has taken the rest.
    @Test func allOfALargeImageIsKept() throws {
        let loaded = try serve(NumberedLaterSource(), pages: 512, chunks: 4)
        #expect(loaded.writes == 128)
        let source = NumberedLaterSource()
        #expect(try serve(source, pages: 512, chunks: 4).diskHits >= 128)
        #expect(source.count == 0)
    }

    @Test func aCallReadsTheDiskToo() throws {
        let first = try ChunkCacheTests.cache(in: folder)
        _ = try ask(CachedSource(NumberedSource(), of: ChunkCacheTests.image(), in: first), at: 0)
        #expect(first.flush(within: .seconds(20)))
        let source = CountedSource()
        let second = try ChunkCacheTests.cache(in: folder)
        let cached = try CachedSource(source, of: ChunkCacheTests.image(), in: second)
        #expect(
            try ask(cached, at: pageBytes).bytes.prefix(8).elementsEqual(
                ask(NumberedSource(), at: pageBytes).bytes.prefix(8)))
        #expect(source.count == 0)
        #expect(second.statistics.diskHits == 1)
    }

    @Test func zerosAreKeptAndTakeNoOthersPlace() throws {
        let zeros = ClosureSource { (_: Int, _: inout OutputRawSpan) throws(Never) -> PageReply in .zero }
        let cache = try ChunkCacheTests.cache(in: folder, diskSets: 4)
        try serve(NumberedLaterSource(), diskSets: 4)
        _ = try serveEveryPage(
            of: CachedSource(zeros, of: ChunkCacheTests.image("zeros"), in: cache), pages: 64, populates: true
        ) { _ in 0 }
        #expect(cache.flush(within: .seconds(20)))
        let source = NumberedLaterSource()
        #expect(try serve(source, diskSets: 4).diskHits == 16)
        #expect(source.count == 0)
    }

    /// Damages the file at a place, and wants all of it right.
    private func damage(_ change: (Int32) -> Bool) throws -> ChunkCache.Statistics {
        try serve(NumberedLaterSource())
        let file = open("\(folder.path)/chunks", O_RDWR | O_CLOEXEC)
        try #require(file >= 0)
        try #require(change(file))
        close(file)
        let second = try serve(NumberedLaterSource())
        // What was damaged is right again.
        let third = NumberedLaterSource()
        #expect(try serve(third).damaged == 0)
        #expect(third.count == 0)
        return second
    }

    private static let setBytes = ChunkFile.minimumBytes(chunkBytes: ChunkCacheTests.chunk)

    /// Every set has one chunk of the image's, in its first place: one byte of each is another.
    @Test(arguments: [0, 4, 8, 20, 60, 1000, ChunkFile.headBytes, ChunkFile.headBytes + 5000])
    func aByteThatIsAnotherIsNoticed(offset: Int) throws {
        let statistics = try damage { file in
            (0..<64).allSatisfy { set in
                let place = set * Self.setBytes + offset
                var byte: UInt8 = 0
                guard pread(file, &byte, 1, place) == 1 else { return false }
                byte ^= 1
                return pwrite(file, &byte, 1, place) == 1
            }
        }
        #expect(statistics.loads == 16)
        #expect(statistics.diskHits == 0)
    }

    /// As a crash leaves it that came between the two writes of a chunk.
    @Test func contentWithoutItsLabelIsNotServed() throws {
        let statistics = try damage { file in
            let content = [UInt8](repeating: 7, count: ChunkCacheTests.chunk)
            return (0..<64).allSatisfy { set in
                let place = set * Self.setBytes + ChunkFile.headBytes
                return pwrite(file, content, content.count, place) == content.count
            }
        }
        #expect(statistics.damaged == 16)
        #expect(statistics.loads == 16)
    }

    @Test(arguments: [0, 1, 5000, 300_000])
    func aFileThatWasCutIsFilledAgain(length: Int) throws {
        let statistics = try damage { ftruncate($0, length) == 0 }
        #expect(statistics.loads + statistics.diskHits == 16)
        #expect(statistics.loads >= 1)
    }

    @Test func aFileOfAnotherShapeIsNoHarm() throws {
        try serve(NumberedLaterSource())
        let source = NumberedLaterSource()
        // Other places for the same chunks, and then the first ones again.
        try serve(source, diskSets: 37)
        let third = NumberedLaterSource()
        try serve(third)
        let fourth = NumberedLaterSource()
        try serve(fourth)
        #expect(fourth.count == 0)
    }

    /// Two caches as of two processes, of images that differ, in a file for four chunks.
    @Test func processesMayShareAFolder() throws {
        @Sendable func page(_ kind: Int, _ page: Int) -> UInt64 { UInt64(kind) << 56 | UInt64(page + 1) }
        let touchers = try (1...2).map { kind in
            let cache = try ChunkCacheTests.cache(chunks: 4, in: folder, diskSets: 1)
            let source = ClosureSource { (offset: Int, pages: inout OutputRawSpan) throws(Never) -> PageReply in
                for place in stride(from: offset, to: offset + pages.freeCapacity, by: pageBytes) {
                    pages.append(repeating: page(kind, place / pageBytes), count: pageBytes / 8, as: UInt64.self)
                }
                return .data
            }
            let cached = try CachedSource(source, of: ChunkCacheTests.image("\(kind)"), in: cache)
            return Toucher {
                (0..<600).allSatisfy { turn in
                    let number = turn * 13 % 64
                    guard let bytes = try? ask(cached, at: number * pageBytes).bytes else { return false }
                    let expected = page(kind, number)
                    return bytes.withUnsafeBytes { $0.bindMemory(to: UInt64.self).allSatisfy { $0 == expected } }
                }
            }
        }
        for toucher in touchers { #expect(toucher.value() == true) }
    }

    // MARK: Disks

    @Test(.requiresRoot) func aFullDiskIsReportedOnce() throws {
        let disk = try ScratchFolder(size: "128k")
        let reports = Mutex<[ChunkCache.Report]>([])
        let statistics = try serve(NumberedLaterSource(), in: disk) { report in reports.withLock { $0.append(report) } }
        #expect(reports.withLock { $0 } == [.notWritable(.noSpace)])
        #expect(statistics.writes > 0)
        // What it took is served.
        let again = try serve(NumberedLaterSource(), in: disk)
        #expect(again.diskHits > 0)
    }

    @Test(.requiresRoot) func aFolderThatIsReadOnlyIsRead() throws {
        let disk = try ScratchFolder(size: "4m")
        try serve(NumberedLaterSource(), in: disk)
        try disk.makeReadOnly()
        let reports = Mutex<[ChunkCache.Report]>([])
        let source = NumberedLaterSource()
        let statistics = try serve(source, in: disk) { report in reports.withLock { $0.append(report) } }
        #expect(reports.withLock { $0 } == [.notWritable(.readOnlyFileSystem)])
        #expect(statistics.diskHits == 16)
        #expect(source.count == 0)
        // Another image goes past it.
        #expect(try serve(NumberedLaterSource(), in: disk, image: "another").writes == 0)
    }

    @Test func aLinkIsNotFollowed() throws {
        try #require(symlink("/etc/passwd", "\(folder.path)/chunks") == 0)
        #expect(
            error { () throws(PagerError) in
                _ = try ChunkCache(.init(folder: folder.path))
            } == .file(.tooManySymbolicLinkLevels, path: folder.path))
    }
}
