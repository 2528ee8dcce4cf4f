import Foundation
import Testing
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// Exports with holes.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ExtentTests {
    private static let page = Served.page
    private static let islands = [0, 1 << 20, 3 << 20, (3 << 20) + 64 * page, (200 << 20) + 5 * page]
    private static let size = 256 << 20

    /// A file with four pages of data at each island, and nothing between.
    private func makeSparseFile(_ folder: URL) throws -> String {
        let path = folder.appendingPathComponent("sparse").path
        try Data().write(to: URL(fileURLWithPath: path))
        let file = try #require(FileHandle(forWritingAtPath: path))
        try file.truncate(atOffset: UInt64(Self.size))
        for island in Self.islands {
            try file.seek(toOffset: UInt64(island))
            let words = (0..<4 * Self.page / 8).map { UInt64(island + $0 * 8 + 1).bigEndian }
            try file.write(contentsOf: words.withUnsafeBytes { Data($0) })
        }
        try file.close()
        return path
    }

    private var isData: Set<Int> {
        Set(Self.islands.flatMap { island in (0..<4).map { island + $0 * Self.page } })
    }

    /// Every page of the regions around the islands, and the holes between.
    private func check(_ served: Served) {
        let isData = isData
        let places = Self.islands.flatMap { island in (-2..<8).map { island + $0 * Self.page } }.filter { $0 >= 0 }
        #expect(
            Toucher.all(places + [100 << 20, Self.size - Self.page]) { place in
                served.word(place + 8) == (isData.contains(place) ? UInt64(place + 9).bigEndian : 0)
            })
    }

    /// There are more runs than are remembered.
    @Test func anExportOfFragmentsIsAnswered() throws {
        let server = try Server.misbehaving("fragments")
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(connections: 1))
        let found = try source.dataRanges(in: 0..<1 << 30, within: .seconds(60))
        #expect(found.count == 1 << 20)
        #expect(found.first == 0..<512)
        #expect(found.last == (1 << 30) - 1024..<(1 << 30) - 512)
    }

    /// What is known of holes ends with the last connection: a restarted server may have another content.
    @Test func holesAreAskedForAgainAfterTheServerWasAway() throws {
        let folder = try Server.makeFolder()
        let path = folder.appendingPathComponent("image").path
        #expect(FileManager.default.createFile(atPath: path, contents: nil))
        try #require(FileHandle(forWritingAtPath: path)).truncate(atOffset: 1 << 20)
        let server = try Server.nbdkit(in: folder, "file", path)
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(connections: 1))
        let served = try Served(source, bytes: 1 << 20, failure: FailurePolicy(retries: 1000))
        #expect(Toucher.all([0]) { served.word($0) == 0 })
        server.kill()
        try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: path))
        try server.start()
        #expect(Toucher.all([512 << 10]) { served.word($0) == 0x0707_0707_0707_0707 })
        try served.pager.stop(.poison)
    }

    @Test func bytesReadAreBytesAllocated() throws {
        let folder = try Server.makeFolder()
        let server = try Server.nbdkit(in: folder, "file", try makeSparseFile(folder))
        let source = try NBDSource(server.uri)
        #expect(source.export.hasExtents)
        let served = try Served(source, bytes: Self.size)
        check(served)
        try served.pager.populate(served.region)
        check(served)
        try served.pager.stop(.poison)
        // An overlap of populate and fault may read a page twice.
        #expect(source.statistics.bytesRead == isData.count * Self.page)
    }

    @Test func dataRangesAreWhatTheFileHas() throws {
        let folder = try Server.makeFolder()
        let server = try Server.nbdkit(in: folder, "file", try makeSparseFile(folder))
        let source = try NBDSource(server.uri)
        let ranges = try source.dataRanges(in: 0..<Self.size)
        #expect(ranges == Self.islands.map { $0..<$0 + 4 * Self.page })
        #expect(
            try source.dataRanges(in: Self.page..<2 << 20) == [
                Self.page..<4 * Self.page, 1 << 20..<(1 << 20) + 4 * Self.page,
            ])
        #expect(try source.dataRanges(in: Self.size..<Self.size + 4096).isEmpty)
    }

    @Test func extentsMayBeIgnored() throws {
        let folder = try Server.makeFolder()
        let server = try Server.nbdkit(in: folder, "file", try makeSparseFile(folder))
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(usesExtents: false))
        #expect(!source.export.hasExtents)
        let served = try Served(source, bytes: Self.size)
        check(served)
        try served.pager.stop(.poison)
        #expect(source.statistics.bytesInHoles == 0)
        #expect(try source.dataRanges(in: 0..<Self.size) == [0..<Self.size])
    }

    /// An overlay over a base, as virtual machines have it.
    @Test func aQcow2ChainIsServed() throws {
        let folder = try Server.makeFolder()
        let base = folder.appendingPathComponent("base.qcow2").path
        let top = folder.appendingPathComponent("top.qcow2").path
        try run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", try makeSparseFile(folder), base)
        try run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
        try run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 50M 64k", "-c", "write -z 1M 64k", top)
        let server = try Server("qemu-nbd", in: folder) {
            ["--read-only", "--persistent", "--shared=8", "--format=qcow2", "--socket=\($0)", top]
        }
        let source = try NBDSource(server.uri)
        #expect(source.export.hasExtents)
        let served = try Served(source, bytes: Self.size)
        #expect(
            Toucher.all([0]) { _ in
                served.word(0) == UInt64(1).bigEndian && served.word(50 << 20) == 0x5a5a_5a5a_5a5a_5a5a
                    // Written over with zeros in the top image.
                    && served.word(1 << 20) == 0 && served.word(100 << 20) == 0
                    && served.word((200 << 20) + 5 * Self.page) == UInt64((200 << 20) + 5 * Self.page + 1).bigEndian
            })
        try served.pager.populate(served.region)
        try served.pager.stop(.poison)
        // Clusters of qcow2 have 64 KiB.
        #expect(source.statistics.bytesRead <= (Self.islands.count + 2) * 128 << 10)
        #expect(source.statistics.failures == 0)
    }

    /// A server whose answers about holes fail: everything is read.
    @Test func extentsThatCannotBeHadAreRead() throws {
        let folder = try Server.makeFolder()
        let server = try Server.nbdkit(
            in: folder, "--filter=error", "file", try makeSparseFile(folder), "error-extents=EIO",
            "error-extents-rate=100%")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(report: { reports.add($0) }))
        let served = try Served(source, bytes: Self.size)
        check(served)
        try served.pager.stop(.poison)
        // For each of the two windows.
        #expect(reports.count { if case .extentsFailed = $0 { true } else { false } } == 2)
        #expect(source.statistics.bytesInHoles == 0)
    }

    /// A reply without an end takes memory until the source looks at what is in it.
    @Test func aServerThatTellsItsHolesAgainAndAgainIsGivenUp() throws {
        let server = try Server.misbehaving("flood")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(connections: 1, report: { reports.add($0) }))
        let error = #expect(throws: NBDError.self) { try source.dataRanges(in: 0..<4096, within: .seconds(10)) }
        #expect(error?.message.contains("told twice") == true)
        server.kill()
    }

    /// A window that would take a hundred million questions.
    @Test func aServerThatTellsLittleIsNotAskedForEver() throws {
        let server = try Server.misbehaving("tiny")
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(connections: 1))
        let ranges = try source.dataRanges(in: 0..<4096, within: .seconds(10))
        #expect(ranges.last?.upperBound == 4096)
        #expect(ranges.count <= 64)
        server.kill()
    }

    @Test func aQuestionMayBeginBeforeTheExport() throws {
        let server = try Server.nbdkit("memory", "1M")
        let source = try NBDSource(server.uri)
        #expect(source.export.hasExtents)
        #expect(try source.dataRanges(in: -4096..<4096) == [])
    }
}
