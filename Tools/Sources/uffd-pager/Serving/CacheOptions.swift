import ArgumentParser
import Logging
import UserfaultPager

/// The cache of a process, for memory that comes from NBD servers.
struct CacheOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Keep what NBD servers have sent in this folder, in a file of at most so many bytes, with K, M, G or T. (default: 1G)",
            valueName: "folder[:bytes]"),
        completion: .directory)
    var cache: CacheFolder?

    @Option(
        help: ArgumentHelp(
            "Keep at most so many bytes of it in memory. Without --cache, it is kept in memory only. (default: 64M)",
            valueName: "bytes"))
    var cacheMemory: ByteCount?

    /// Whether there is to be a cache.
    var isWanted: Bool { cache != nil || cacheMemory != nil }

    /// The cache, or `nil` if there is to be none.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    func open(logger: Logger) throws -> ChunkCache? {
        guard isWanted else { return nil }
        var configuration = ChunkCache.Configuration { [cache] report in
            let (what, errno) =
                switch report {
                case .notWritable(let errno):
                    ("nothing more is kept in the cache's folder, which cannot be written", errno)
                case .notReadable(let errno): ("a part of the cache cannot be read, and is loaded again", errno)
                }
            logger.warning("\(what)", metadata: ["folder": "\(cache?.path ?? "")", "error": "\(errno)"])
        }
        if let cacheMemory { configuration.memoryBytes = cacheMemory.value }
        if let cache {
            configuration.folder = cache.path
            configuration.diskBytes = cache.byteCount.value
        }
        do {
            return try ChunkCache(configuration)
        } catch {
            throw Failure(.uncreatable, "the cache\(cache.map { " in \($0.path)" } ?? ""): \(error)")
        }
    }
}

/// Where memory is kept, and which version of it.
struct MemoryCache: Sendable {
    let chunks: ChunkCache
    let revision: String
}

/// A folder, and how much it may take.
struct CacheFolder: ExpressibleByArgument {
    let path: String
    let byteCount: ByteCount

    init?(argument: String) {
        // What does not begin as a number after a colon belongs to the path.
        if let colon = argument.lastIndex(of: ":"),
            let text = Optional(argument[argument.index(after: colon)...]), text.first?.isNumber == true
        {
            guard let count = ByteCount(argument: String(text)) else { return nil }
            path = String(argument[..<colon])
            byteCount = count
        } else {
            path = argument
            byteCount = ByteCount(value: 1 << 30)
        }
        guard !path.isEmpty else { return nil }
    }
}

/// A number of bytes, with a unit.
struct ByteCount: ExpressibleByArgument {
    let value: Int

    init(value: Int) { self.value = value }

    init?(argument: String) {
        let units = Array("KMGT")
        let unit = argument.last.flatMap(units.firstIndex)
        guard let number = Int(unit == nil ? argument : String(argument.dropLast())), number > 0 else { return nil }
        let (count, overflows) = number.multipliedReportingOverflow(by: 1 << (10 * ((unit ?? -1) + 1)))
        guard !overflows else { return nil }
        value = count
    }
}
