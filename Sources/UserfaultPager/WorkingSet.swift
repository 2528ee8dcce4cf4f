/// The pages that a program touched first, in the order in which it did.
///
/// As a file: 8 bytes `UFFDWSET`, the version (1) and the page size as 32-bit words, the number of pages as a 64-bit word,
/// then for each page its offset in the source, in bytes, as a 64-bit word; all of it little-endian.
public struct WorkingSet: Hashable, Sendable {
    /// Where each page begins in the source, in bytes.
    public var offsets: [UInt64]

    /// The size of the pages, in bytes.
    public var pageBytes: UInt32

    private static let magic: [UInt8] = Array("UFFDWSET".utf8)
    private static let headerBytes = 24

    /// Pages that were touched.
    public init(offsets: [UInt64], pageBytes: UInt32) {
        self.offsets = offsets
        self.pageBytes = pageBytes
    }

    /// Reads a file's bytes.
    ///
    /// - Returns: `nil` where they are not a working set of this version, or not all of one.
    public init?(bytes: [UInt8]) {
        func word<Word: FixedWidthInteger>(at position: Int, as _: Word.Type) -> Word {
            (0..<Word.bitWidth / 8).reduce(0) { $0 | Word(truncatingIfNeeded: bytes[position + $1]) << Word($1 * 8) }
        }
        guard bytes.count >= Self.headerBytes, Array(bytes[..<8]) == Self.magic, word(at: 8, as: UInt32.self) == 1,
            let count = Int(exactly: word(at: 16, as: UInt64.self)),
            count == (bytes.count - Self.headerBytes) / 8, (bytes.count - Self.headerBytes) % 8 == 0
        else { return nil }
        pageBytes = word(at: 12, as: UInt32.self)
        offsets = (0..<count).map { word(at: Self.headerBytes + $0 * 8, as: UInt64.self) }
    }

    /// The bytes of a file.
    public var bytes: [UInt8] {
        func parts<Word: FixedWidthInteger>(_ word: Word) -> [UInt8] {
            (0..<Word.bitWidth / 8).map { UInt8(truncatingIfNeeded: word >> Word($0 * 8)) }
        }
        return Self.magic + parts(UInt32(1)) + parts(pageBytes) + parts(UInt64(offsets.count))
            + offsets.flatMap { parts($0) }
    }
}
