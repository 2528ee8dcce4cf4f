import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("The record of a client for a successor")
struct KeptRecordTests {
    private static func record() throws -> KeptRecord {
        let region = try HandedRegion(address: 0x10000, byteCount: 0x2000, offset: 0x3000, pageBytes: 0x1000)
        return KeptRecord(
            machine: "web-1", source: "8 17", format: .handoff,
            content: HandoffMessage.Content(flags: .kernelFaults, features: .eventRemove, regions: [region]))
    }

    /// What version 1 has written, byte by byte: later versions must read it.
    private static let firstVersion: [UInt8] =
        Array("UFFDKEPT".utf8) + [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
        + Array("web-18 17".utf8)
        + Array("UFFDHAND".utf8) + [1, 0, 0, 0, 1, 0, 0, 0] + [8, 0, 0, 0, 0, 0, 0, 0] + [1, 0, 0, 0, 0, 0, 0, 0]
        + [0, 0, 1, 0, 0, 0, 0, 0] + [0, 0x20, 0, 0, 0, 0, 0, 0] + [0, 0x30, 0, 0, 0, 0, 0, 0]
        + [0, 0x10, 0, 0, 0, 0, 0, 0]

    @Test("has the bytes of its version, and is read from them")
    func layout() throws {
        let record = try Self.record()
        #expect(record.bytes == Self.firstVersion)
        #expect(try KeptRecord(bytes: Self.firstVersion) == record)
    }

    @Test("knows the process, which earlier programs have not written")
    func process() throws {
        var record = try Self.record()
        record.process = 0x1234
        var bytes = Self.firstVersion
        bytes[28...29] = [0x34, 0x12]
        #expect(record.bytes == bytes)
        #expect(try KeptRecord(bytes: bytes) == record)
        #expect(try KeptRecord(bytes: Self.firstVersion).process == 0)
    }

    @Test("of a later version is refused by its version")
    func version() {
        var bytes = Self.firstVersion
        bytes[8] = 3
        #expect(throws: HandoffError.version(3)) { try KeptRecord(bytes: bytes) }
    }

    @Test("of a client with a memory file is of a version that others do not take over")
    func memoryFile() throws {
        var record = try Self.record()
        record.content.flags.insert(.memoryFile)
        var bytes = record.bytes
        #expect(bytes[8] == 2)
        #expect(try KeptRecord(bytes: bytes) == record)
        bytes[8] = 1
        #expect(throws: HandoffError.self) { try KeptRecord(bytes: bytes) }
    }

    @Test(
        "is refused if it is damaged",
        arguments: [(0, 0x56), (12, 2), (16, 2), (20, 200), (20, 6), (24, 3), (31, 0x80), (32, 0xff), (41, 0), (53, 4)])
    func refused(position: Int, byte: UInt8) {
        var bytes = Self.firstVersion
        bytes[position] = byte
        #expect(throws: HandoffError.self) { try KeptRecord(bytes: bytes) }
    }

    @Test("is refused if it is cut, or longer")
    func cut() {
        for count in 0..<Self.firstVersion.count {
            #expect(throws: HandoffError.self) { try KeptRecord(bytes: Array(Self.firstVersion.prefix(count))) }
        }
        #expect(throws: HandoffError.self) { try KeptRecord(bytes: Self.firstVersion + [0]) }
    }

    @Test("says in its file when the service begins")
    func file() throws {
        let record = try Self.record()
        let file = try record.makeFile()
        #expect(try KeptRecord(file: file) == record)
        try KeptRecord.noteBegun(in: file)
        var begun = record
        begun.isBegun = true
        #expect(try KeptRecord(file: file) == begun)
    }
}
