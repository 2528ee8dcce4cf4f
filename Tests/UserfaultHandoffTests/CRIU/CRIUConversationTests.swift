import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("What criu restore says")
struct CRIUConversationTests {
    private static func bytes(_ word: Int32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: UInt32(bitPattern: word) >> UInt32(8 * $0)) }
    }

    private static let restored: [UInt8] = Array("FTSR".utf8)

    private static func events(_ bytes: [UInt8], limit: Int = 4) throws -> [CRIUConversation.Event] {
        var conversation = CRIUConversation(limit: limit)
        return try bytes.compactMap { try conversation.take($0, descriptors: 1) }
    }

    @Test("names tasks, with and without memory, and the end")
    func whole() throws {
        let events = try Self.events(Self.bytes(41) + [0] + Self.bytes(-42) + Self.bytes(43) + [0] + Self.restored)
        #expect(events == [.task(41), .taskWithoutMemory(42), .task(43), .restored])
    }

    @Test("is refused if a descriptor is missing")
    func missingDescriptor() throws {
        var conversation = CRIUConversation(limit: 4)
        for byte in Self.bytes(41) { #expect(try conversation.take(byte, descriptors: 0) == nil) }
        #expect(!conversation.isBetweenMessages)
        #expect(throws: CRIUConversation.Violation.missingDescriptor(41)) { try conversation.take(0, descriptors: 0) }
    }

    @Test(
        "is refused if it is anything else",
        arguments: [
            (bytes(0), CRIUConversation.Violation.badProcessID(0)),
            (bytes(1 << 23), .badProcessID(1 << 23)), (bytes(.min), .badProcessID(.min)),
            (bytes(5) + [0] + bytes(-5), .repeated(5)), (restored + [1], .surplus),
            (bytes(-1) + bytes(-2) + bytes(-3), .tooMany),
        ])
    func violations(bytes: [UInt8], violation: CRIUConversation.Violation) {
        #expect(throws: violation) { try Self.events(bytes, limit: 2) }
    }

    /// Set on the connection, it would come too late for what was sent since that was accepted.
    @Test("comes with its sender from the first byte on")
    func senders() throws {
        let path = "/tmp/uffd-senders-\(getpid()).socket"
        defer { unlink(path) }
        let listener = try UnixSocket.listen(at: path)
        try UnixSocket.passSenders(to: FileDescriptor(rawValue: listener.rawValue))
        let client = try UnixSocket.connect(to: path)
        let server = try UnixSocket.accept(from: listener)
        try DescriptorPassing.send(
            Self.restored.span.bytes, descriptors: [], over: FileDescriptor(rawValue: client.rawValue))
        var message = try DescriptorPassing.receive(upTo: 64, from: FileDescriptor(rawValue: server.rawValue))
        let hasSender = message.takeSender() != nil
        #expect(hasSender)
    }
}

@Suite("Messages of CRIU's page server")
struct CRIUPageServerMessageTests {
    @Test("are laid out as CRIU 4.1.1 does")
    func narrow() {
        // What `criu lazy-pages` of version 4.1.1 sent, and what `criu dump --lazy-pages` answered.
        let request: [UInt8] = [
            7, 0, 0, 0, 1, 0, 0, 0, 0, 0x90, 0x14, 0x9b, 0xff, 0x7e, 0, 0, 0xdf, 5, 0, 0, 0, 0, 0, 0,
        ]
        let message = CRIUPageServerMessage(.get, pages: 1, address: 0x7eff_9b14_9000, task: 1503)
        #expect(message.bytes(.narrow) == request)
        var answer = request
        answer.replaceSubrange(0..<4, with: [6, 0, 4, 0])
        let read = CRIUPageServerMessage(answer[...], .narrow)
        #expect(read.command == 6)
        #expect(read.flags == .present)
        #expect(read.pages == 1 && read.address == 0x7eff_9b14_9000 && read.identifier == 1503)
    }

    @Test("of 32 bytes count pages in 64 bits")
    func wide() {
        let message = CRIUPageServerMessage(.get, pages: 1 << 33, address: 4096, task: 7)
        let bytes = message.bytes(.wide)
        #expect(bytes.count == 32)
        #expect(CRIUPageServerMessage(bytes[...], .wide) == message)
    }
}

@Suite("The name of a page server")
struct CRIUPageServerTests {
    @Test("is an address with a port, or a path")
    func names() {
        #expect(CRIUPageServer("10.0.0.1:27") == CRIUPageServer(address: "10.0.0.1", port: 27))
        #expect(CRIUPageServer("[::1]:27") == CRIUPageServer(address: "::1", port: 27))
        #expect(CRIUPageServer("/run/tunnel") == CRIUPageServer(path: "/run/tunnel"))
        for name in ["", ":27", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:x"] {
            #expect(CRIUPageServer(name) == nil, "\(name)")
        }
    }
}
