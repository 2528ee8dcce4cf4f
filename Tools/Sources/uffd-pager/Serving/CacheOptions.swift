import ArgumentParser
import Logging
import UserfaultPager

/// What is kept of memory that comes from an NBD server.
struct CacheOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Keep what an NBD server has sent in this folder, in a file of at most so many bytes: 1G unless said, with K, M, G or T.",
            valueName: "folder[:bytes]"),
        completion: .directory)
    var cache: CacheFolder?

    @Option(
        help: ArgumentHelp(
            "Which version of the memory it is, for --cache: memory that has changed needs another name.",
            valueName: "name"))
    var cacheRevision: String?

    func validate() throws {
        guard (cache == nil) == (cacheRevision == nil) else {
            throw ValidationError(
                "--cache and --cache-revision go together: the revision says which version of the memory is kept")
        }
    }

    /// What they say, with a cache that is open.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    func memoryCache(logger: Logger) throws -> MemoryCache? {
        guard let cache, let cacheRevision else { return nil }
        do {
            let configuration = ChunkCache.Configuration(folder: cache.path, diskBytes: cache.byteCount) { report in
                logger.warning("the cache's folder", metadata: ["problem": "\(report)"])
            }
            return MemoryCache(chunks: try ChunkCache(configuration), revision: cacheRevision)
        } catch {
            throw Failure(.uncreatable, "the cache in \(cache.path): \(error)")
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
    let byteCount: Int

    init?(argument: String) {
        guard let colon = argument.lastIndex(of: ":"), let count = Self.bytes(argument[argument.index(after: colon)...])
        else {
            guard !argument.isEmpty else { return nil }
            path = argument
            byteCount = 1 << 30
            return
        }
        guard colon > argument.startIndex else { return nil }
        path = String(argument[..<colon])
        byteCount = count
    }

    /// A number with a unit; `nil` for what is none, which belongs to the path.
    private static func bytes(_ text: Substring) -> Int? {
        let units = Array("KMGT")
        let unit = text.last.flatMap(units.firstIndex)
        guard let number = Int(unit == nil ? text : text.dropLast()), number > 0 else { return nil }
        let (count, overflows) = number.multipliedReportingOverflow(by: 1 << (10 * ((unit ?? -1) + 1)))
        return overflows ? nil : count
    }
}
