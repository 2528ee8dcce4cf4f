public import SystemPackage
internal import UserfaultFD

/// An image, and which version of it: what chunks in a ``ChunkCache`` belong to.
///
/// Sources of equal identities share their chunks, in every process that uses the cache's folder, and for as long as that
/// is kept. Different content needs another identity.
public struct ImageIdentity: Hashable, Sendable {
    /// What the image is called, such as its address.
    public let name: String
    /// Its length, in bytes: what follows is zeros.
    public let byteCount: Int
    /// Which version of it, such as the name of a snapshot, or a checksum.
    public let revision: String

    /// The longest name and revision together, in bytes of UTF-8.
    public static var maximumNameBytes: Int { 900 }

    /// The longest image: 4 EiB.
    public static var maximumByteCount: Int { 1 << 62 }

    /// Names an image.
    ///
    /// - Throws: ``PagerError/configuration(_:)`` if the names are longer than ``maximumNameBytes``, or the length is not
    ///   0 to ``maximumByteCount``.
    public init(name: String, byteCount: Int, revision: String) throws(PagerError) {
        guard name.utf8.count + revision.utf8.count <= Self.maximumNameBytes else {
            throw .configuration("name and revision of an image are at most \(Self.maximumNameBytes) bytes")
        }
        guard (0...Self.maximumByteCount).contains(byteCount) else {
            throw .configuration("the length of an image is 0 to \(Self.maximumByteCount) bytes: \(byteCount)")
        }
        self.name = name
        self.byteCount = byteCount
        self.revision = revision
    }

    /// By bytes, as names of files are: two names that Unicode takes for one are two images.
    public static func == (lhs: ImageIdentity, rhs: ImageIdentity) -> Bool { lhs.bytes == rhs.bytes }

    /// By bytes.
    public func hash(into hasher: inout Hasher) { hasher.combine(bytes) }

    /// All of it, without ambiguity.
    var bytes: [UInt8] {
        var writer = WordWriter()
        writer.append(UInt64(byteCount))
        writer.append(UInt32(revision.utf8.count))
        return writer.bytes + revision.utf8 + name.utf8
    }
}

extension ChunkCache {
    /// How much a cache keeps, and where.
    public struct Configuration: Sendable {
        /// The length of a chunk, in bytes: whole pages.
        ///
        /// That much is loaded for one page that is not in the cache.
        public var chunkBytes: Int

        /// Memory for chunks, those on their way included, in bytes: for 4 chunks to ``maximumChunks``.
        public var memoryBytes: Int

        /// A folder for a file of chunks, which outlives the process; `nil` for none.
        ///
        /// Several processes may use it, best with the same lengths. Who can write to it decides what memory holds.
        public var folder: String?

        /// The most that the file takes, in bytes.
        public var diskBytes: Int

        /// Gets what goes wrong with the folder, on whatever thread meets it: it must not wait.
        public var report: (@Sendable (Report) -> Void)?

        /// The most chunks that memory is for.
        public static var maximumChunks: Int { 1 << 24 }

        /// How much a cache keeps; the defaults suit images of a few gigabytes.
        public init(
            chunkBytes: Int = 64 << 10, memoryBytes: Int = 64 << 20, folder: String? = nil, diskBytes: Int = 1 << 30,
            report: (@Sendable (Report) -> Void)? = nil
        ) {
            self.chunkBytes = chunkBytes
            self.memoryBytes = memoryBytes
            self.folder = folder
            self.diskBytes = diskBytes
            self.report = report
        }

        func check() throws(PagerError) {
            let page = PageSize.base.bytes
            guard chunkBytes >= page, chunkBytes <= 64 << 20, chunkBytes % page == 0 else {
                throw .configuration("a chunk is whole pages, at most 64 MiB: \(chunkBytes)")
            }
            let memoryRange = 4 * chunkBytes...Self.maximumChunks * chunkBytes
            guard memoryRange.contains(memoryBytes) else {
                let (least, most) = (memoryRange.lowerBound, memoryRange.upperBound)
                throw .configuration("memory for chunks of \(chunkBytes) is \(least) to \(most) bytes: \(memoryBytes)")
            }
            guard folder == nil || diskBytes >= ChunkFile.minimumBytes(chunkBytes: chunkBytes) else {
                throw .configuration("a cache on disk has room for at least four chunks: \(diskBytes)")
            }
        }
    }

    /// What went wrong with the folder: the cache goes on without that.
    public enum Report: Hashable, Sendable {
        /// Nothing can be kept there: chunks that the file has are served, no more are added. Reported once.
        case notWritable(Errno)
        /// A chunk could not be read, and is loaded again. Reported once.
        case notReadable(Errno)
    }

    /// What a cache did so far.
    public struct Statistics: Hashable, Sendable {
        /// Chunks that were in memory when a page of them was wanted.
        public var memoryHits = 0
        /// Chunks that were read from the disk.
        public var diskHits = 0
        /// Chunks that the source was asked for.
        public var loads = 0
        /// Requests that went to the source by themselves, because their chunk could not be loaded or had no room.
        public var passedOn = 0
        /// Chunks that were written to the disk.
        public var writes = 0
        /// Chunks on the disk that were torn or damaged, and not used.
        public var damaged = 0
    }
}
