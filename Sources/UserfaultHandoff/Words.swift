/// Reads little-endian words, one after the other.
struct WordReader {
    private let bytes: [UInt8]
    private(set) var position: Int

    init(_ bytes: [UInt8], from position: Int = 0) {
        self.bytes = bytes
        self.position = position
    }

    /// - Precondition: The word is there.
    mutating func next<Word: FixedWidthInteger>(_: Word.Type) -> Word {
        defer { position += Word.bitWidth / 8 }
        return (0..<Word.bitWidth / 8).reduce(0) { $0 | Word(truncatingIfNeeded: bytes[position + $1]) << Word($1 * 8) }
    }
}

/// Writes little-endian words, one after the other.
struct WordWriter {
    private(set) var bytes: [UInt8]

    init(_ bytes: [UInt8] = []) {
        self.bytes = bytes
    }

    mutating func append<Word: FixedWidthInteger>(_ word: Word) {
        for index in 0..<Word.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: word >> Word(index * 8))) }
    }
}
