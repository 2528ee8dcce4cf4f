internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

/// Chunks of images, in memory and on disk, between slow sources and the pagers of a process.
///
/// ```swift
/// let cache = try ChunkCache(.init(folder: "/var/cache/images", diskBytes: 16 << 30))
/// let image = try ImageIdentity(name: "/mnt/server/image", byteCount: 8 << 30, revision: "snapshot 7")
/// let file = try FileSource(adopting: descriptor)
/// let pager = try Pager(UserfaultFD(), source: CachedSource(file, of: image, in: cache))
/// ```
///
/// What is loaded once is not loaded again while there is room for it, in this process and, with a folder, in the next.
/// Threads and pagers that want the same chunk at the same time load it once. Memory holds at most
/// ``Configuration/memoryBytes``, the file at most ``Configuration/diskBytes``.
///
/// Every chunk in the file has a checksum of its content and of what it belongs to. A chunk that is torn, damaged, or
/// another's is loaded again, and is never served. A folder that cannot be written is reported, and only read.
///
/// An image must never change: content that does needs another ``ImageIdentity``.
public final class ChunkCache: Sendable {
    struct State {
        var table: ChunkTable
        /// Chunks without any content, which take no place in memory.
        var zeros: Set<ChunkKey> = []
        var loads: [ChunkKey: ChunkLoad] = [:]
        /// Requests for which no thread waits and for whose chunk there is no place now.
        var parked = Line<ChunkRequest>()
        /// Chunks of which pages went past the cache, and which are parked.
        var keeping: Set<ChunkKey> = []
        var images = ImageTable(limit: 1024)
        /// Threads that wait until it is at rest.
        var flushing = 0

        /// Nothing is on its way, neither from a source nor to the disk.
        var isAtRest: Bool { table.isUnpinned && keeping.isEmpty }

        /// It is at rest, and a thread waits for that.
        var isAwaitedRest: Bool { flushing > 0 && isAtRest }
    }

    /// How much it keeps, and where.
    public let configuration: Configuration
    let state: Mutex<State>
    let disk: CacheDisk?
    let counters = CacheCounters()
    private let memory: Mapping
    let reader: CacheThread
    let writer: CacheThread
    let rested = FutexWord()

    static var zerosLimit: Int { 1 << 16 }

    /// The most chunks that are to be loaded only to be kept: what waits takes a few percent of the memory for chunks.
    var keepingLimit: Int { max(1024, configuration.memoryBytes / PageSize.base.bytes) }

    /// Makes a cache, and opens its folder's file.
    ///
    /// - Throws: ``PagerError/configuration(_:)``; ``PagerError/file(_:path:)`` if the folder is not there;
    ///   ``PagerError/kernel(_:)`` and ``PagerError/noThread(_:)`` without memory or threads for it.
    public init(_ configuration: Configuration = Configuration()) throws(PagerError) {
        try configuration.check()
        self.configuration = configuration
        let places = configuration.memoryBytes / configuration.chunkBytes
        state = Mutex(State(table: ChunkTable(places: places)))
        if let folder = configuration.folder {
            disk = try CacheDisk(folder, configuration, counters)
        } else {
            disk = nil
        }
        let chunkBytes = configuration.chunkBytes
        memory = try asPagerError { () throws(UserfaultError) in
            try Mapping(anonymous: places * chunkBytes, options: .noReserve)
        }
        reader = try asPagerError { () throws(UserfaultError) in try CacheThread.start("uffd-cache-in") }
        do {
            writer = try asPagerError { () throws(UserfaultError) in try CacheThread.start("uffd-cache-out") }
        } catch {
            reader.close()
            throw error
        }
    }

    deinit {
        reader.close()
        writer.close()
    }

    /// Waits until every chunk that is on its way has come, and was written to the file.
    ///
    /// A crash of the machine may still take it.
    ///
    /// - Parameter limit: How long to wait; `nil` waits without a limit.
    /// - Returns: `false` if it is not there in time.
    @discardableResult
    public func flush(within limit: Duration? = nil) -> Bool {
        let deadline = Deadline(after: limit)
        state.withLock { $0.flushing += 1 }
        defer { state.withLock { $0.flushing -= 1 } }
        while true {
            let seen = rested.changes
            if state.withLock(\.isAtRest) { return true }
            if deadline.hasPassed { return false }
            rested.wait(while: seen, until: deadline)
        }
    }

    /// What was done so far.
    public var statistics: Statistics { counters.snapshot }

    /// An image as this cache knows it.
    func image(_ identity: ImageIdentity) -> CachedImage {
        let number = state.withLock { $0.images.number(of: identity) }
        return CachedImage(number, identity, chunkBytes: configuration.chunkBytes)
    }

    /// The memory of a place.
    func room(_ place: Int) -> UnsafeMutableRawBufferPointer {
        let count = configuration.chunkBytes
        return unsafe UnsafeMutableRawBufferPointer(start: memory.unsafeBaseAddress + place * count, count: count)
    }
}
