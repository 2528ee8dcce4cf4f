/// The messages of one image file.
///
/// A file begins with a magic number of all images and one of its kind, or, in images of version 1 and in the inventory,
/// with that of its kind alone. Messages follow, each with its length in four bytes in front.
struct CRIUImageFile {
    /// What a file is, by its magic number.
    enum Kind: UInt32 {
        case inventory = 0x5831_3116
        case processTree = 0x5027_3030
        case memoryMap = 0x5749_2820
        case pagemap = 0x5608_4025
    }

    private static let common: UInt32 = 0x5456_4319

    private var rest: ArraySlice<UInt8>

    /// - Throws: ``CRIUImageError/Reason/badMagic``.
    init(_ bytes: ArraySlice<UInt8>, _ kind: Kind) throws(CRIUImageError.Reason) {
        rest = bytes
        guard var magic = takeWord() else { throw .badMagic }
        if magic == Self.common {
            guard let own = takeWord() else { throw .badMagic }
            magic = own
        }
        guard magic == kind.rawValue else { throw .badMagic }
    }

    /// The next message, or `nil` at the file's end.
    mutating func next() throws(CRIUImageError.Reason) -> ProtobufReader? {
        guard !rest.isEmpty else { return nil }
        guard let count = takeWord(), Int(count) <= rest.count else { throw .badMessage }
        defer { rest = rest.dropFirst(Int(count)) }
        return ProtobufReader(rest.prefix(Int(count)))
    }

    private mutating func takeWord() -> UInt32? {
        guard rest.count >= 4 else { return nil }
        defer { rest = rest.dropFirst(4) }
        return UInt32(truncatingIfNeeded: littleEndian(rest.prefix(4)))
    }
}
