internal import UserfaultFD

/// The pages that a program touched first, in the order in which it did.
///
/// As a file: 8 bytes `UFFDWSET`, the version (1) and the page size as 32-bit words, the number of pages as a 64-bit word,
/// then for each page its offset in the source, in bytes, as a 64-bit word; all of it little-endian. There is no checksum: a
/// damaged list costs time and no content, because it only says what to load first.
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
    /// - Returns: `nil` where they are not a working set of this version, not all of one, or not offsets of whole pages.
    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.headerBytes, bytes.starts(with: Self.magic) else { return nil }
        var reader = WordReader(bytes, from: Self.magic.count)
        guard reader.next(UInt32.self) == 1 else { return nil }
        pageBytes = reader.next(UInt32.self)
        let payload = bytes.count - Self.headerBytes
        guard let count = Int(exactly: reader.next(UInt64.self)), count == payload / 8, payload % 8 == 0 else {
            return nil
        }
        offsets = (0..<count).map { _ in reader.next(UInt64.self) }
        guard (try? check()) != nil else { return nil }
    }

    /// Finds what no run records.
    ///
    /// - Throws: ``PagerError/badPageSize(_:)``, ``PagerError/badOffset(_:)``.
    func check() throws(PagerError) {
        guard let page = PageSize(bytes: Int(pageBytes)), page >= .base else { throw .badPageSize(Int(pageBytes)) }
        for offset in offsets {
            let offset = Int(clamping: offset)
            guard page.holds(offset), offset <= Int.max - page.bytes else { throw .badOffset(offset) }
        }
    }

    /// Takes over what another run touched.
    ///
    /// That run's pages come first, in its order; the pages that only earlier runs touched follow. A run with pages of
    /// another size replaces everything.
    ///
    /// - Parameters:
    ///   - run: The latest run.
    ///   - limit: The most pages to keep: those that were not touched for the longest time are forgotten.
    public mutating func merge(_ run: WorkingSet, limit: Int = .max) {
        var known = Set(run.offsets)
        let earlier = pageBytes == run.pageBytes ? offsets.filter { known.insert($0).inserted } : []
        offsets = Array((run.offsets + earlier).prefix(limit))
        pageBytes = run.pageBytes
    }

    /// The bytes of a file.
    public var bytes: [UInt8] {
        var writer = WordWriter(Self.magic)
        writer.append(UInt32(1))
        writer.append(pageBytes)
        writer.append(UInt64(offsets.count))
        for offset in offsets { writer.append(offset) }
        return writer.bytes
    }
}
