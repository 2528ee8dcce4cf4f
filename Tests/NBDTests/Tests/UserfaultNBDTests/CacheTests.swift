import Foundation
import Testing
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// A chunk cache between a server and its pagers.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct CacheTests {
    private static let page = Served.page
    private static let size = 16 << 20

    private func cached(
        _ source: NBDSource, in cache: ChunkCache, revision: String = "1"
    ) throws -> CachedSource<AsynchronousSource<NBDSource>> {
        try CachedSource(
            AsynchronousSource(source),
            of: ImageIdentity(name: "pattern", byteCount: source.export.byteCount, revision: revision), in: cache)
    }

    /// Serves all of an export, half of it by touching it and half in the background.
    private func restore(from source: NBDSource, in cache: ChunkCache, revision: String = "1") throws {
        let served = try ServedMemory(of: cached(source, in: cache, revision: revision), bytes: Self.size)
        let pages = Self.size / Self.page
        #expect(Toucher.all((0..<pages / 2).shuffled().map { $0 * Self.page }, threads: 4) { served.isPattern($0) })
        try served.pager.populate(served.region)
        #expect(Toucher.all((0..<pages).map { $0 * Self.page }, threads: 4) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(served.pager.statistics.failures == 0)
        #expect(cache.flush(within: .seconds(30)))
    }

    @Test func theSecondRestoreMakesNoRequest() throws {
        let folder = try Server.makeFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let log = folder.appendingPathComponent("log")
        let server = try Server.pattern("16M", "log", parameters: ["logfile=\(log.path)"])
        /// What the server was asked for: reads, and where its holes are.
        func requests() throws -> Int {
            try String(contentsOf: log, encoding: .utf8).split(separator: "\n")
                .count { $0.contains(" Read id=") || $0.contains(" Extents id=") }
        }
        let configuration = ChunkCache.Configuration(memoryBytes: 4 << 20, folder: folder.path, diskBytes: 64 << 20)
        try restore(from: NBDSource(server.uri), in: ChunkCache(configuration))
        let first = try requests()
        #expect(first > 0)
        try restore(from: NBDSource(server.uri), in: ChunkCache(configuration))
        #expect(try requests() == first)
        // Another version of the image is another.
        try restore(from: NBDSource(server.uri), in: ChunkCache(configuration), revision: "2")
        #expect(try requests() > first)
    }

    @Test func aServerThatIsGoneCostsNothingThatIsKept() throws {
        let server = try Server.pattern("16M")
        let source = try NBDSource(server.uri)
        let cache = try ChunkCache()
        try restore(from: source, in: cache)
        server.kill()
        try restore(from: source, in: cache)
        #expect(source.statistics.failures == 0)
    }

    /// Holes stay holes, which take neither memory nor a place of other chunks.
    @Test func holesAreKeptAsHoles() throws {
        let server = try Server.nbdkit("memory", "\(Self.size)")
        let source = try NBDSource(server.uri)
        let cache = try ChunkCache(.init(memoryBytes: 1 << 20))
        for _ in 0..<2 {
            let served = try ServedMemory(of: cached(source, in: cache), bytes: Self.size)
            try served.pager.populate(served.region)
            try served.pager.stop(.poison)
            #expect(served.pager.statistics.pagesCopied == 0)
            #expect(served.pager.statistics.failures == 0)
        }
        #expect(source.statistics.bytesRead == 0)
        #expect(source.statistics.requests == Self.size / (64 << 10))
    }
}
