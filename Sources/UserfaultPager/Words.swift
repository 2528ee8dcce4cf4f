/// Reads little-endian words, one after the other.
package struct WordReader {
    private let bytes: [UInt8]
    package private(set) var position: Int

    package init(_ bytes: [UInt8], from position: Int = 0) {
        self.bytes = bytes
        self.position = position
    }

    /// - Precondition: The word is there.
    package mutating func next<Word: FixedWidthInteger>(_: Word.Type) -> Word {
        defer { position += Word.bitWidth / 8 }
        return (0..<Word.bitWidth / 8).reduce(0) { $0 | Word(truncatingIfNeeded: bytes[position + $1]) << Word($1 * 8) }
    }
}

/// Writes little-endian words, one after the other.
package struct WordWriter {
    package private(set) var bytes: [UInt8]

    package init(_ bytes: [UInt8] = []) {
        self.bytes = bytes
    }

    package mutating func append<Word: FixedWidthInteger>(_ word: Word) {
        for index in 0..<Word.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: word >> Word(index * 8))) }
    }
}
