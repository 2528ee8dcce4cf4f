internal import UserfaultFD

/// What a chunk in a file belongs to: compared byte by byte.
struct ChunkLabel {
    let index: Int
    /// All that a place in the file says of its chunk but checksum and kind, see ``ChunkFile``.
    let bytes: [UInt8]
    /// Where the image begins among the sets.
    let start: Int

    init(image: [UInt8], index: Int, chunkBytes: Int) {
        self.index = index
        var writer = WordWriter()
        writer.append(ChunkFile.magic)
        writer.append(UInt64(index))
        writer.append(UInt64(chunkBytes))
        writer.append(UInt32(image.count))
        bytes =
            writer.bytes + image
            + [UInt8](repeating: 0, count: max(0, Self.byteCount - writer.bytes.count - image.count))
        start = unsafe image.withUnsafeBytes { unsafe Int(CRC32C.checksum(of: $0)) }
    }

    /// What follows checksum and kind.
    static var byteCount: Int { ChunkFile.headBytes / ChunkFile.ways - 8 }
}

/// A file of chunks, each of which proves itself: nothing else in the file has to be right.
///
/// The file is sets of four places. A chunk has one set, by its image and number, and any place of it. Each set begins
/// with what its places say of themselves: a checksum of everything else and of the content, whether the content is
/// there or is zeros, and the label. So no index has to be kept or believed. Whatever a crash, or another process, left
/// there is either a whole chunk with the right label, or is not used.
struct ChunkFile: ~Copyable, Sendable {
    static var ways: Int { 4 }
    static var headBytes: Int { 4 << 10 }
    static var magic: UInt64 { 0x3130_4b4e_4843_4655 }

    /// What a place holds.
    private enum Kind: UInt32 {
        case data = 1
        case zeros = 2
    }

    /// What was found of a chunk.
    enum Found {
        case data
        case zeros
        case nothing
        /// Its place says so, but the checksum differs.
        case damaged
    }

    private let descriptor: OwnedDescriptor
    private let chunkBytes: Int
    private let sets: Int
    private var setBytes: Int { Self.minimumBytes(chunkBytes: chunkBytes) }

    static func minimumBytes(chunkBytes: Int) -> Int { headBytes + ways * chunkBytes }

    /// Opens a folder's file.
    ///
    /// - Parameter isReadOnly: Makes no file, and changes none.
    init(folder: String, byteCount: Int, chunkBytes: Int, isReadOnly: Bool = false) throws(UserfaultError) {
        let file = try OwnedDescriptor(openingNoLink: folder + "/chunks", isReadOnly: isReadOnly)
        let setBytes = Self.minimumBytes(chunkBytes: chunkBytes)
        if !isReadOnly { try file.resize(to: byteCount / setBytes * setBytes) }
        descriptor = file
        self.chunkBytes = chunkBytes
        sets = byteCount / setBytes
    }

    private func offset(of label: ChunkLabel) -> Int { (label.start + label.index) % sets * setBytes }

    private func head(at offset: Int) throws(UserfaultError) -> [UInt8] {
        var head = [UInt8](repeating: 0, count: Self.headBytes)
        var span = head.mutableSpan
        var room = unsafe span.mutableBytes
        _ = try unsafe room.withUnsafeMutableBytes { (room) throws(UserfaultError) in
            // Beyond the file's end there is nothing.
            unsafe try descriptor.read(into: room, at: offset)
        }
        return head
    }

    private static func range(of way: Int) -> Range<Int> {
        way * (headBytes / ways)..<(way + 1) * (headBytes / ways)
    }

    private static func way(of label: ChunkLabel, in head: [UInt8]) -> Int? {
        (0..<ways).first { head[range(of: $0)].dropFirst(8).elementsEqual(label.bytes) }
    }

    private static func kind(of way: Int, in head: [UInt8]) -> Kind? {
        var reader = WordReader(head, from: range(of: way).lowerBound + 4)
        let kind = Kind(rawValue: reader.next(UInt32.self))
        return reader.next(UInt64.self) == magic ? kind : nil
    }

    private static func checksum(of place: ArraySlice<UInt8>, _ content: UnsafeRawBufferPointer?) -> UInt32 {
        let own = unsafe place.withUnsafeBytes {
            unsafe CRC32C.checksum(of: UnsafeRawBufferPointer(rebasing: $0[4...]))
        }
        return unsafe content.map { unsafe CRC32C.checksum(of: $0, after: own) } ?? own
    }

    /// Looks for a chunk.
    ///
    /// - Parameter room: Where its content goes: a chunk. Undefined unless there is data.
    func read(_ label: ChunkLabel, into room: UnsafeMutableRawBufferPointer) throws(UserfaultError) -> Found {
        let offset = offset(of: label)
        let head = try head(at: offset)
        guard let way = Self.way(of: label, in: head), let kind = Self.kind(of: way, in: head) else { return .nothing }
        let place = head[Self.range(of: way)]
        var reader = WordReader(head, from: place.startIndex)
        let checksum = reader.next(UInt32.self)
        guard kind == .data else { return unsafe Self.checksum(of: place, nil) == checksum ? .zeros : .damaged }
        let count = unsafe try descriptor.read(into: room, at: offset + Self.headBytes + way * chunkBytes)
        let content = UnsafeRawBufferPointer(room)
        return unsafe count == chunkBytes && Self.checksum(of: place, content) == checksum ? .data : .damaged
    }

    /// Keeps a chunk, in place of another if its set is full; zeros take no other's place.
    ///
    /// - Parameter content: A chunk, or `nil` for zeros.
    /// - Returns: Whether it was kept.
    func write(_ label: ChunkLabel, _ content: UnsafeRawBufferPointer?) throws(UserfaultError) -> Bool {
        let offset = offset(of: label)
        let head = try head(at: offset)
        let kinds = (0..<Self.ways).map { Self.kind(of: $0, in: head) }
        let place = unsafe content == nil ? nil : Int.random(in: 0..<Self.ways)
        guard
            let way = Self.way(of: label, in: head) ?? kinds.firstIndex(of: nil) ?? kinds.firstIndex(of: .zeros)
                ?? place
        else { return false }
        if let content = unsafe content {
            unsafe try descriptor.write(content, at: offset + Self.headBytes + way * chunkBytes)
        }
        var writer = WordWriter([0, 0, 0, 0])
        unsafe writer.append((content == nil ? Kind.zeros : .data).rawValue)
        let rest = writer.bytes + label.bytes
        var whole = WordWriter()
        unsafe whole.append(Self.checksum(of: rest[...], content))
        let bytes = whole.bytes + rest[4...]
        try unsafe bytes.span.bytes.withUnsafeBytes { (bytes) throws(UserfaultError) in
            unsafe try descriptor.write(bytes, at: offset + Self.range(of: way).lowerBound)
        }
        return true
    }
}
