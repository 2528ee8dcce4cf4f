import CLZ4
import Glibc
import SystemPackage
import UserfaultFD

/// A mapped file of one LZ4 frame, as `lz4 -B4 --content-size` writes it.
///
/// Its blocks do not depend on each other, and all but the last are of one size: each can be decompressed alone.
struct LZ4File: ~Copyable, Sendable {
    /// Why a file cannot be read in pieces.
    enum Failure: Error {
        case notMapped(UserfaultError)
        case notOneFrame
        case unsupported(String)
        /// What the frame's header says does not fit its blocks.
        case inconsistent
    }

    private struct Block {
        var start: Int
        var count: Int
        var isCompressed: Bool
    }

    /// In bytes, decompressed.
    let byteCount: Int
    /// Of every block but the last, decompressed.
    let blockBytes: Int
    private let content: Mapping
    private let blocks: [Block]

    init(_ descriptor: CInt) throws(Failure) {
        let size = Int(lseek(descriptor, 0, SEEK_END))
        let mapping = try Self.map(descriptor, size)
        let bytes = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: mapping.range.start), count: size)
        let header = try Header(bytes)
        let blocks = try Self.blocks(bytes, header)
        guard blocks.count == (header.byteCount + header.blockBytes - 1) / header.blockBytes else {
            throw .inconsistent
        }
        content = mapping
        byteCount = header.byteCount
        blockBytes = header.blockBytes
        self.blocks = blocks
    }

    private static func map(_ descriptor: CInt, _ size: Int) throws(Failure) -> Mapping {
        do {
            return try Mapping(
                file: FileDescriptor(rawValue: descriptor), count: size, sharing: .private, protection: .read)
        } catch {
            throw .notMapped(error)
        }
    }

    /// How many blocks there are.
    var blockCount: Int { blocks.count }

    /// How long a block is, decompressed.
    func count(ofBlock number: Int) -> Int { min(blockBytes, byteCount - number * blockBytes) }

    /// Decompresses a block.
    ///
    /// It takes no memory and no lock.
    ///
    /// - Returns: `false` if the block is broken.
    func decompress(_ number: Int, into room: UnsafeMutableRawBufferPointer) -> Bool {
        let block = blocks[number]
        let expected = count(ofBlock: number)
        let source = UnsafeRawPointer(bitPattern: content.range.start + UInt(block.start))!
        guard block.isCompressed else {
            guard block.count == expected else { return false }
            room.copyMemory(from: UnsafeRawBufferPointer(start: source, count: expected))
            return true
        }
        return LZ4_decompress_safe(
            source.assumingMemoryBound(to: CChar.self), room.baseAddress!.assumingMemoryBound(to: CChar.self),
            CInt(block.count), CInt(expected)) == CInt(expected)
    }

    /// The frame's descriptor, see the LZ4 frame format.
    private struct Header {
        var byteCount = 0
        var blockBytes = 0
        var hasBlockChecksums = false
        /// Where the first block begins.
        var end = 0

        init(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
            guard bytes.count >= 15, bytes.word(at: 0) == 0x184D_2204 else { throw .notOneFrame }
            let flags = bytes[4]
            guard flags >> 6 == 1 else { throw .unsupported("version \(flags >> 6) of the format") }
            guard flags & 0x20 != 0 else { throw .unsupported("blocks that depend on each other") }
            guard flags & 0x08 != 0 else { throw .unsupported("a frame that does not say how long it is") }
            guard flags & 0x01 == 0 else { throw .unsupported("a dictionary") }
            hasBlockChecksums = flags & 0x10 != 0
            let sizeCode = Int(bytes[5] >> 4) & 7
            guard sizeCode >= 4 else { throw .unsupported("blocks of size \(sizeCode)") }
            blockBytes = 1 << (8 + 2 * sizeCode)
            let length = UInt64(bytes.word(at: 6)) | UInt64(bytes.word(at: 10)) << 32
            guard length > 0, length < 1 << 46 else { throw .unsupported("\(length) bytes") }
            byteCount = Int(length)
            end = 15
        }
    }

    private static func blocks(_ bytes: UnsafeRawBufferPointer, _ header: Header) throws(Failure) -> [Block] {
        var blocks: [Block] = []
        var position = header.end
        while true {
            guard position + 4 <= bytes.count else { throw .inconsistent }
            let word = bytes.word(at: position)
            if word == 0 { return blocks }
            let block = Block(start: position + 4, count: Int(word & 0x7FFF_FFFF), isCompressed: word >> 31 == 0)
            position = block.start + block.count + (header.hasBlockChecksums ? 4 : 0)
            guard block.count <= header.blockBytes, position <= bytes.count else { throw .inconsistent }
            blocks.append(block)
        }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func word(at offset: Int) -> UInt32 {
        UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}
