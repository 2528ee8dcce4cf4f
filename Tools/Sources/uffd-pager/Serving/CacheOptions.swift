import ArgumentParser
import Logging
import UserfaultPager

/// The cache of a process, for memory that comes from NBD servers.
struct CacheOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Keep what NBD servers have sent in this folder, in a file of at most so many bytes: a whole number, with K, M, G \
            or T for multiples of 1024. (default: 1G)
            """, valueName: "folder[:bytes]"),
        completion: .directory)
    var cache: CacheFolder?

    @Option(
        help: ArgumentHelp(
            """
            Keep at most so many bytes of it in memory, from 256K to 1T. Without --cache, it is kept in memory only. \
            (default: 64M)
            """, valueName: "bytes"))
    var cacheMemory: ByteCount?

    func validate() throws {
        guard cacheMemory.map({ Self.memoryRange.contains($0.value) }) ?? true else {
            throw ValidationError("--cache-memory needs a number of bytes from 256K to 1T")
        }
    }

    /// Four chunks, and as many as a cache has numbers for.
    private static let memoryRange = 256 << 10...1 << 40

    /// What is wrong with a version of a memory, or `nil`.
    static func complaint(about revision: String, of memory: String) -> String? {
        let count = revision.utf8.count + memory.utf8.count
        return count <= ImageIdentity.maximumNameBytes
            ? nil
            : "the version and the address of a memory are at most \(ImageIdentity.maximumNameBytes) bytes together: \(count)"
    }

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
        // What does not begin as a number after a colon belongs to the path; a number with a sign or a point is a slip.
        if let colon = argument.lastIndex(of: ":"),
            let text = Optional(argument[argument.index(after: colon)...]),
            text.drop(while: { "+-.".contains($0) }).first?.isNumber == true
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
        guard argument.first?.isNumber == true, let number = Int(unit == nil ? argument : String(argument.dropLast())),
            number > 0
        else { return nil }
        let (count, overflows) = number.multipliedReportingOverflow(by: 1 << (10 * ((unit ?? -1) + 1)))
        guard !overflows else { return nil }
        value = count
    }
}
