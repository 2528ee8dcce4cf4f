import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("The handoff's own message")
struct HandoffMessageTests {
    private static let page = UInt64(PageSize.base.bytes)

    private static func content() throws -> HandoffMessage.Content {
        HandoffMessage.Content(
            flags: [.kernelFaults, .memoryFile], features: [.eventRemove, .threadID],
            regions: [
                try HandedRegion(address: 16 * page, byteCount: 4 * page, offset: 0, pageBytes: page),
                try HandedRegion(address: 2 << 30, byteCount: 4 << 20, offset: 4 << 20, pageBytes: 2 << 20),
            ])
    }

    @Test("is read as it was written, in pieces of any size", arguments: [1, 3, 32, 96])
    func roundTrip(size: Int) throws {
        let content = try Self.content()
        var rest = content.bytes[...]
        var message = HandoffMessage()
        var found: HandoffMessage.Content?
        while !rest.isEmpty {
            #expect(found == nil)
            found = try message.consume(rest.prefix(size))
            rest = rest.dropFirst(size)
        }
        #expect(found == content)
    }

    @Test("has the bytes that the documentation shows")
    func layout() throws {
        let region = try HandedRegion(address: 0x10000, byteCount: 0x2000, offset: 0x3000, pageBytes: 0x1000)
        let bytes = HandoffMessage.Content(flags: .kernelFaults, features: nil, regions: [region]).bytes
        let expected: [UInt8] =
            Array("UFFDHAND".utf8) + [1, 0, 0, 0, 1, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0, 0] + [1, 0, 0, 0, 0, 0, 0, 0]
            + [0, 0, 1, 0, 0, 0, 0, 0] + [0, 0x20, 0, 0, 0, 0, 0, 0] + [0, 0x30, 0, 0, 0, 0, 0, 0]
            + [0, 0x10, 0, 0, 0, 0, 0, 0]
        #expect(bytes == expected)
    }

    @Test(
        "is refused as soon as its bytes are wrong",
        arguments: [
            (0, 0x56), (8, 2), (12, 4), (24, 255), (28, 1), (32 + 24, 1), (32 + 15, 0x80),
        ])
    func refused(position: Int, byte: UInt8) throws {
        var bytes = try Self.content().bytes
        bytes[position] = byte
        #expect(throws: HandoffError.self) {
            var message = HandoffMessage(limits: HandoffLimits(regions: 200))
            if try message.consume(bytes) == nil { throw HandoffError.closedEarly }
        }
    }

    @Test("is refused with something after it, and above the limits")
    func limits() throws {
        let bytes = try Self.content().bytes
        var message = HandoffMessage()
        #expect(throws: HandoffError.self) { try message.consume(bytes + [0]) }
        message = HandoffMessage(limits: HandoffLimits(regions: 1))
        #expect(throws: HandoffError.tooManyRegions(limit: 1)) { try message.consume(bytes) }
        message = HandoffMessage(limits: HandoffLimits(messageBytes: 95))
        #expect(throws: HandoffError.tooLong(limit: 95)) { try message.consume(bytes) }
    }

    @Test("has a reply, read as it was written")
    func reply() throws {
        for reply in [HandoffReply.served, .refused("no such source")] {
            let bytes = reply.bytes
            for count in 0..<bytes.count { #expect(try HandoffReply.read(Array(bytes.prefix(count))) == nil) }
            #expect(try HandoffReply.read(bytes) == reply)
        }
        #expect(throws: HandoffError.self) { try HandoffReply.read(Array("UFFDDONX".utf8)) }
        #expect(throws: HandoffError.self) { try HandoffReply.read(Array("UFFDDONE".utf8) + [2, 0, 0, 0, 0, 0, 0, 0]) }
    }
}
