/// The fields of one protobuf message, in the order in which they were written.
///
/// What the images of CRIU need of the wire format: varints, and bytes with their length. Every length is checked against
/// what is left; a group, which no image has, is malformed.
struct ProtobufReader {
    /// A field's number and what it holds.
    enum Field {
        case number(Int, UInt64)
        case bytes(Int, ArraySlice<UInt8>)
    }

    private var rest: ArraySlice<UInt8>

    init(_ message: ArraySlice<UInt8>) {
        rest = message
    }

    /// The next field, or `nil` at the message's end.
    ///
    /// - Throws: ``CRIUImageError/Reason/badMessage`` for what is no message.
    mutating func next() throws(CRIUImageError.Reason) -> Field? {
        guard !rest.isEmpty else { return nil }
        let key = try varint()
        guard let field = Int(exactly: key >> 3), (1...Self.greatestField).contains(field) else { throw .badMessage }
        switch key & 7 {
        case 0: return .number(field, try varint())
        case 1: return .number(field, littleEndian(try take(8)))
        case 2:
            guard let count = Int(exactly: try varint()) else { throw .badMessage }
            return .bytes(field, try take(count))
        case 5: return .number(field, littleEndian(try take(4)))
        default: throw .badMessage
        }
    }

    private static var greatestField: Int { (1 << 29) - 1 }

    private mutating func take(_ count: Int) throws(CRIUImageError.Reason) -> ArraySlice<UInt8> {
        guard count <= rest.count else { throw .badMessage }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    private mutating func varint() throws(CRIUImageError.Reason) -> UInt64 {
        var value: UInt64 = 0
        for position in 0..<10 {
            guard let byte = rest.popFirst() else { throw .badMessage }
            // The tenth byte has room for one bit.
            guard position < 9 || byte <= 1 else { throw .badMessage }
            value |= UInt64(byte & 0x7f) << UInt64(7 * position)
            if byte < 0x80 { return value }
        }
        throw .badMessage
    }
}

/// A number of up to eight bytes, the least significant first.
func littleEndian(_ bytes: some Collection<UInt8>) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}
