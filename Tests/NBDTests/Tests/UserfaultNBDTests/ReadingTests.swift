import Foundation
import Synchronization
import Testing
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// Servers that work.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ReadingTests {
    private static let page = Served.page

    @Test func pagesOfAnExportAreRead() throws {
        let server = try Server.pattern("64M")
        let source = try NBDSource(server.uri)
        #expect(source.export.byteCount == 64 << 20)
        #expect(source.export.allowsManyConnections)
        let served = try Served(source, bytes: 64 << 20)
        let offsets = (0..<2000).map { _ in Int.random(in: 0..<16384) * Self.page }
        #expect(Toucher.all(offsets, threads: 4) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(source.statistics.failures == 0)
        #expect(served.pager.statistics.failures == 0)
    }

    /// An object in an HTTP server, by ranges.
    @Test func anObjectOfAnHTTPServerIsServed() throws {
        let folder = try Server.makeFolder()
        let words = (0..<(4 << 20) / 8).map { UInt64($0 * 8).bigEndian }
        try words.withUnsafeBytes { Data($0) }.write(to: folder.appendingPathComponent("image.raw"))
        let socket = "\(folder.path)/http"
        let settings = folder.appendingPathComponent("nginx.conf")
        // One process, which ends when it is killed, and which needs no folder of an installed nginx.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(folder.path);" }
        try """
        daemon off; master_process off; pid \(folder.path)/pid; error_log stderr; events {}
        http { access_log off; \(temporary.joined(separator: " ")) server { listen unix:\(socket); root \(folder.path); } }
        """.write(to: settings, atomically: true, encoding: .utf8)
        let web = try Server("nginx", in: folder, isReadyAt: "\(folder.path)/pid") { _ in
            ["-c", settings.path, "-p", folder.path]
        }
        let server = try Server.nbdkit("curl", "url=http://localhost/image.raw", "unix-socket-path=\(socket)")
        let source = try NBDSource(server.uri)
        let served = try Served(source, bytes: 4 << 20, failure: FailurePolicy(retries: 20))
        try served.pager.populate(served.region)
        #expect(Toucher.all((0..<1024).map { $0 * Self.page }) { served.isPattern($0) })
        try served.pager.stop(.poison)
        web.kill()
    }

    @Test func populateReadsNeighboursTogether() throws {
        let server = try Server.pattern("16M")
        let source = try NBDSource(server.uri)
        let served = try Served(source, bytes: 16 << 20)
        try served.pager.populate(served.region)
        #expect(Toucher.all(stride(from: 0, to: 16 << 20, by: Self.page).map(\.self)) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(source.statistics.bytesRead == 16 << 20)
        #expect(source.statistics.reads < 128)
    }

    @Test func zerosFollowTheEnd() throws {
        let server = try Server.pattern("1027K")
        let source = try NBDSource(server.uri)
        let served = try Served(source, bytes: 2 << 20)
        let last = 1024 << 10
        #expect(
            Toucher.all([0]) { _ in
                served.word(last) == UInt64(last).bigEndian && served.word(last + 3064) == UInt64(last + 3064).bigEndian
                    && served.word(last + 3072) == 0 && served.word(last + Self.page) == 0
                    && served.word((2 << 20) - 8) == 0
            })
        try served.pager.stop(.poison)
    }

    /// One source, three pagers, each with another part of the export.
    @Test func pagersShareASource() throws {
        let server = try Server.pattern("16M")
        let source = try NBDSource(server.uri)
        let pagers = try (0..<3).map { try Served(source, bytes: 4 << 20, offset: $0 << 22, readAhead: .adaptive()) }
        let places = (0..<3).flatMap { pager in (0..<1024).map { (pager, $0 * Self.page) } }.map { [$0.0, $0.1] }
        #expect(Toucher.all(places, threads: 6) { pagers[$0[0]].isPattern($0[1], at: $0[0] << 22 + $0[1]) })
        for pager in pagers { try pager.pager.stop(.poison) }
    }

    @Test func memoryIsBounded() throws {
        let server = try Server.pattern("32M", "delay", parameters: ["rdelay=1ms"])
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(coalescedBytes: 64 << 10, memoryLimit: 512 << 10))
        let served = try Served(source, bytes: 32 << 20)
        try served.pager.populate(served.region)
        #expect(Toucher.all(stride(from: 0, to: 32 << 20, by: Self.page).map(\.self)) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(source.statistics.peakMemory <= 512 << 10)
        #expect(source.statistics.peakMemory > 0)
    }

    @Test func aServerMayAllowOneConnection() throws {
        let server = try Server.pattern("4M", "multi-conn", parameters: ["multi-conn-mode=disable"])
        let source = try NBDSource(server.uri)
        #expect(!source.export.allowsManyConnections)
        let served = try Served(source, bytes: 4 << 20)
        try served.pager.populate(served.region)
        #expect(Toucher.all(stride(from: 0, to: 4 << 20, by: Self.page).map(\.self)) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(source.statistics.connections == 1)
    }

    /// Two pages of data, a hole, and an end inside a page, read by somebody who has no pager.
    @Test func checksumsNeedNoPager() throws {
        let folder = try Server.makeFolder()
        let path = folder.appendingPathComponent("sparse").path
        let data = Data((0..<2 * Self.page).map { UInt8(truncatingIfNeeded: $0 / 3 + 1) })
        try data.write(to: URL(fileURLWithPath: path))
        let file = try #require(FileHandle(forWritingAtPath: path))
        try file.truncate(atOffset: UInt64(128 * Self.page + 512))
        try file.close()
        let server = try Server.nbdkit(in: folder, "file", path)
        let source = try NBDSource(server.uri)
        var expected = PageChecksums()
        data.withUnsafeBytes { expected.append($0.bytes) }
        expected.appendZeros(126 * Self.page + 512)

        let found = Mutex(PageChecksums())
        let answered = DispatchSemaphore(value: 0)
        for (offset, byteCount) in [(0, 2 * Self.page), (2 * Self.page, 127 * Self.page)] {
            source.load(
                PageRequest(offset: offset, byteCount: byteCount) { reply in
                    switch reply {
                    case .memory(let address, let count):
                        let content = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: count)
                        found.withLock { found in found.append(content.bytes) }
                    case .zeros: found.withLock { $0.appendZeros(byteCount) }
                    default: Issue.record("no answer")
                    }
                    answered.signal()
                })
            #expect(answered.wait(timeout: .now() + .seconds(30)) == .success)
        }
        #expect(found.withLock(\.self) == expected)
        #expect(source.statistics.bytesInHoles > 0)
    }

    /// Nobody may ask for the end: neither for a part of a block, nor for a whole one that the export does not have.
    @Test(arguments: ["error", "allow"])
    func anExportThatEndsInsideABlockIsRefused(policy: String) throws {
        func server(_ size: String) throws -> Server {
            try Server.pattern(
                size, "blocksize-policy",
                parameters: [
                    "blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=32M",
                    "blocksize-error-policy=\(policy)",
                ])
        }
        let odd = try server("41060")
        let error = #expect(throws: NBDError.self) { try NBDSource(odd.uri) }
        #expect(error?.operation == .connect)
        #expect(
            error?.message
                == "the export has 41060 bytes and is read in blocks of 512: its last 100 bytes cannot be read")
        // An end inside a page is none inside a block, and is read.
        let even = try server("41472")
        let served = try Served(NBDSource(even.uri), bytes: 12 * Self.page)
        #expect(
            Toucher.all([0]) { _ in
                served.word(41464) == UInt64(41464).bigEndian && served.word(41472) == 0
                    && served.word(11 * Self.page) == 0
            })
        try served.pager.stop(.poison)
    }

    /// The server reads blocks of 64 KiB only.
    @Test func readsAreMultiplesOfTheServersBlocks() throws {
        let server = try Server.pattern(
            "4M", "blocksize-policy",
            parameters: ["blocksize-minimum=64K", "blocksize-preferred=64K", "blocksize-error-policy=error"])
        let source = try NBDSource(server.uri)
        #expect(source.export.minimumBlock == 64 << 10)
        let served = try Served(source, bytes: 4 << 20)
        let offsets = (0..<100).map { _ in Int.random(in: 0..<1024) * Self.page }
        #expect(Toucher.all(offsets) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(source.statistics.failures == 0)
    }
}
