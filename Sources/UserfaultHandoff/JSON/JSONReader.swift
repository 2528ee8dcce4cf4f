/// Reads JSON of a known shape, one value after the other, and skips what it does not know: strict, as RFC 8259 is.
struct JSONReader {
    private let bytes: [UInt8]
    private(set) var position = 0

    /// How deep values that are skipped may be nested.
    private static let maximumDepth = 64

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0a, 0x0d].contains(byte) }

    /// Reads an array, whose elements the closure reads.
    mutating func array(_ element: (inout JSONReader) throws(HandoffError) -> Void) throws(HandoffError) {
        try expect("[")
        guard !skip("]") else { return }
        repeat { try element(&self) } while skip(",")
        try expect("]")
    }

    /// Reads an object: the closure gets each name, and reads or skips its value.
    mutating func object(
        _ member: (inout JSONReader, String) throws(HandoffError) -> Void
    ) throws(HandoffError) {
        try expect("{")
        guard !skip("}") else { return }
        repeat {
            let name = try string()
            try expect(":")
            try member(&self, name)
        } while skip(",")
        try expect("}")
    }

    /// Reads a number without sign, fraction or exponent.
    mutating func unsigned() throws(HandoffError) -> UInt64 {
        let text = try number()
        guard let value = UInt64(text) else { throw malformed("\(text) is not a whole number of 64 bits") }
        return value
    }

    /// Passes over any value.
    mutating func skipValue(depth: Int = 0) throws(HandoffError) {
        guard depth < Self.maximumDepth else { throw malformed("it is nested too deep") }
        switch peek {
        case UInt8(ascii: "{"):
            try object { (reader, _) throws(HandoffError) in try reader.skipValue(depth: depth + 1) }
        case UInt8(ascii: "["):
            try array { (reader) throws(HandoffError) in try reader.skipValue(depth: depth + 1) }
        case UInt8(ascii: "\""): _ = try string()
        case UInt8(ascii: "t"): try word("true")
        case UInt8(ascii: "f"): try word("false")
        case UInt8(ascii: "n"): try word("null")
        default: _ = try number()
        }
    }

    /// Where a value is, or, for the last member of a path, its name's end.
    ///
    /// - Returns: `nil` if there is none.
    mutating func place(of path: ArraySlice<any CodingKey>) throws(HandoffError) -> Int? {
        let first = peek
        guard let key = path.first else { return position }
        var found: Int?
        func look(_ reader: inout JSONReader, isHere: Bool) throws(HandoffError) {
            if isHere, found == nil {
                var inside = reader
                let isName = path.count == 1 && key.intValue == nil
                found = isName ? reader.position : try inside.place(of: path.dropFirst())
            }
            try reader.skipValue()
        }
        if let index = key.intValue, first == UInt8(ascii: "[") {
            var next = 0
            try array { (reader) throws(HandoffError) in
                try look(&reader, isHere: next == index)
                next += 1
            }
        } else if first == UInt8(ascii: "{") {
            try object { (reader, name) throws(HandoffError) in
                try look(&reader, isHere: name == key.stringValue)
            }
        }
        return found
    }

    /// Makes sure that nothing follows.
    mutating func end() throws(HandoffError) {
        guard peek == nil else { throw malformed("something follows the value") }
    }

    // MARK: Tokens

    private func malformed(_ text: String) -> HandoffError { .malformed("\(text), at byte \(position)") }

    /// The next byte that is no white space.
    private var peek: UInt8? {
        mutating get {
            while position < bytes.count, Self.isSpace(bytes[position]) { position += 1 }
            return position < bytes.count ? bytes[position] : nil
        }
    }

    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard peek == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ character: Unicode.Scalar) throws(HandoffError) {
        guard skip(character) else { throw malformed("'\(character)' is missing") }
    }

    private mutating func word(_ text: StaticString) throws(HandoffError) {
        for character in text.description.utf8 {
            guard position < bytes.count, bytes[position] == character else { throw malformed("\(text) is misspelt") }
            position += 1
        }
    }

    private mutating func digits() -> Int {
        let start = position
        while position < bytes.count, (0x30...0x39).contains(bytes[position]) { position += 1 }
        return position - start
    }

    private mutating func number() throws(HandoffError) -> String {
        guard peek != nil else { throw malformed("a value is missing") }
        let start = position
        if bytes[position] == UInt8(ascii: "-") { position += 1 }
        let startsWithZero = position < bytes.count && bytes[position] == 0x30
        let whole = digits()
        guard whole > 0, !startsWithZero || whole == 1 else { throw malformed("this is not a valid value") }
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            position += 1
            guard digits() > 0 else { throw malformed("a fraction has no digits") }
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            position += 1
            if position < bytes.count, [UInt8(ascii: "+"), UInt8(ascii: "-")].contains(bytes[position]) {
                position += 1
            }
            guard digits() > 0 else { throw malformed("an exponent has no digits") }
        }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func string() throws(HandoffError) -> String {
        try expect("\"")
        var content: [UInt8] = []
        while true {
            guard position < bytes.count else { throw malformed("a string does not end") }
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: content, as: UTF8.self) else {
                    throw malformed("a string is not UTF-8")
                }
                return text
            case UInt8(ascii: "\\"): content += Array(String(try escaped()).utf8)
            case 0..<0x20: throw malformed("a string has a control character")
            default: content.append(byte)
            }
        }
    }

    private mutating func escaped() throws(HandoffError) -> Unicode.Scalar {
        guard position < bytes.count else { throw malformed("an escape does not end") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try codePoint()
        default: throw malformed("an escape is not known")
        }
    }

    private mutating func codePoint() throws(HandoffError) -> Unicode.Scalar {
        let first = try hexadecimal()
        guard (0xd800..<0xdc00).contains(first) else {
            guard let scalar = Unicode.Scalar(first) else { throw malformed("half a surrogate pair") }
            return scalar
        }
        try word("\\u")
        let second = try hexadecimal()
        guard (0xdc00..<0xe000).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
        else { throw malformed("half a surrogate pair") }
        return scalar
    }

    private mutating func hexadecimal() throws(HandoffError) -> UInt32 {
        guard position + 4 <= bytes.count,
            bytes[position..<position + 4].allSatisfy({
                (0x30...0x39).contains($0) || (0x61...0x66).contains($0 | 0x20)
            }),
            let value = UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
        else { throw malformed("an escape has no four digits") }
        position += 4
        return value
    }
}
