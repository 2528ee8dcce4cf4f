internal import UserfaultPager

/// What a server of this library's own handoff sends back: pure, bytes in and an answer out.
///
/// `UFFDDONE`, a status and the length of a text as little-endian words of 32 bits, then the text in UTF-8.
public struct HandoffReply: Hashable, Sendable {
    /// Whether the memory is served (status 0), or not (status 1): pages are as they were, or poisoned if the client had
    /// registered them.
    public let isServed: Bool

    /// Why not; empty if it is served.
    public let text: String

    private static let magic = Array("UFFDDONE".utf8)
    private static let headerBytes = 16
    private static let textLimit = 4096

    /// The memory is served.
    public static let served = HandoffReply(isServed: true, text: "")

    /// The memory is not served; `text` says why.
    public static func refused(_ text: String) -> HandoffReply { HandoffReply(isServed: false, text: text) }

    private init(isServed: Bool, text: String) {
        self.isServed = isServed
        self.text = text
    }

    /// Reads what has arrived.
    ///
    /// - Parameter bytes: The reply from its first byte on.
    /// - Returns: The reply, or `nil` if more has to arrive.
    /// - Throws: ``HandoffError/malformed(_:)``.
    public static func read(_ bytes: [UInt8]) throws(HandoffError) -> HandoffReply? {
        guard bytes.starts(with: magic.prefix(bytes.count)) else { throw .malformed("this is not a reply") }
        guard bytes.count >= headerBytes else { return nil }
        var reader = WordReader(bytes, from: magic.count)
        let status = reader.next(UInt32.self)
        let length = Int(reader.next(UInt32.self))
        guard status <= 1, length <= textLimit else { throw .malformed("the reply's status or length is not known") }
        guard bytes.count >= headerBytes + length else { return nil }
        let text = String(decoding: bytes[headerBytes..<headerBytes + length], as: UTF8.self)
        return HandoffReply(isServed: status == 0, text: text)
    }

    /// The bytes of the reply.
    public var bytes: [UInt8] {
        let text = Array(text.utf8.prefix(Self.textLimit))
        var writer = WordWriter(Self.magic)
        writer.append(UInt32(isServed ? 0 : 1))
        writer.append(UInt32(text.count))
        return writer.bytes + text
    }
}
