/// Finds where a JSON array ends while its bytes arrive: a stream tells no boundaries.
///
/// Follows strings and brackets and nothing else; ``JSONReader`` checks the rest once it is complete.
struct JSONFrame: Sendable {
    /// What has arrived.
    private(set) var bytes: [UInt8] = []

    private let limit: Int
    private var depth = 0
    private var isInString = false
    private var isEscaped = false
    private var hasBegun = false

    init(limit: Int) {
        self.limit = limit
    }

    /// Whether nothing but white space has arrived.
    var isEmpty: Bool { !hasBegun }

    /// Takes bytes in.
    ///
    /// - Returns: Whether the array is complete.
    /// - Throws: ``HandoffError/malformed(_:)`` if it does not begin with a bracket, or if something follows it;
    ///   ``HandoffError/tooLong(limit:)``.
    mutating func consume(_ chunk: some Collection<UInt8>) throws(HandoffError) -> Bool {
        guard bytes.count + chunk.count <= limit else { throw .tooLong(limit: limit) }
        for byte in chunk {
            bytes.append(byte)
            if hasBegun && depth == 0 {
                guard JSONReader.isSpace(byte) else { throw .malformed("something follows the array") }
            } else {
                try follow(byte)
            }
        }
        return hasBegun && depth == 0
    }

    private mutating func follow(_ byte: UInt8) throws(HandoffError) {
        guard hasBegun else {
            if JSONReader.isSpace(byte) { return }
            guard byte == UInt8(ascii: "[") else { throw .malformed("it is not a JSON array") }
            hasBegun = true
            depth = 1
            return
        }
        guard !isInString else {
            if isEscaped {
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte == UInt8(ascii: "\"") {
                isInString = false
            }
            return
        }
        switch byte {
        case UInt8(ascii: "\""): isInString = true
        case UInt8(ascii: "["), UInt8(ascii: "{"): depth += 1
        case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
        default: break
        }
    }
}
