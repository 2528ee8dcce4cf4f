import ArgumentParser
import Logging
import SystemPackage
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

#if NBD
import UserfaultNBD
#endif

/// Where the memory of machines comes from: a file, a block device, or an export of an NBD server.
enum MemorySource: Sendable {
    case file(MemoryFile)
    #if NBD
    /// One connection for all machines.
    case nbd(NBDSource, export: String)
    /// The same, with a cache in front of it.
    case cached(CachedSource<AsynchronousSource<NBDSource>>, ChunkCache, byteCount: Int, export: String)
    #endif

    /// Whether this is the URI of an NBD server, and not a path.
    static func isAddress(_ name: String) -> Bool {
        ["nbd:", "nbds:", "nbd+unix:", "nbds+unix:"].contains(where: name.hasPrefix)
    }

    /// - Parameters:
    ///   - name: A path, or an `nbd` URI.
    ///   - tls: How to identify the server of an `nbds` URI.
    ///   - cache: Keeps what a server has sent.
    ///   - logger: Is told what happens to the server.
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``; `ValidationError` for a file with a cache, and for certificates
    ///   that are not used.
    init(_ name: String, tls: TLSOptions, cache: MemoryCache? = nil, logger: Logger) throws {
        try Self.check(name)
        try tls.check(for: name)
        guard Self.isAddress(name) else {
            if cache != nil { try Self.checkCache(for: name) }
            self = .file(try MemoryFile(name))
            return
        }
        #if NBD
        do {
            let source = try NBDSource(name, configuration: NBDLog(logger).configuration(tls.configuration))
            guard let cache else {
                self = .nbd(source, export: String(Self.export(in: name)))
                return
            }
            let image = try ImageIdentity(name: name, byteCount: source.export.byteCount, revision: cache.revision)
            self = .cached(
                try CachedSource(AsynchronousSource(source), of: image, in: cache.chunks), cache.chunks,
                byteCount: image.byteCount, export: "\(Self.export(in: name)), revision \(cache.revision)")
        } catch {
            throw Failure(.unreadable, "\(name) cannot be read: \(error)")
        }
        #else
        throw Failure(.unavailable, "\(name): this program was built without NBD (swift build --traits NBD)")
        #endif
    }

    /// - Throws: `ValidationError` for the address of a server that no source here asks.
    static func check(_ name: String) throws {
        guard !isAddress(name), let end = name.firstRange(of: "://")?.lowerBound, end > name.startIndex,
            name[..<end].allSatisfy({ $0.isASCII && $0.isLetter || $0.isNumber || "+-.".contains($0) })
        else { return }
        let remedy =
            ["http", "https", "ftp"].contains(name[..<end].lowercased())
            ? "let nbdkit read it, 'nbdkit --unix /run/memory.socket curl \(name)', and name "
                + "'nbd+unix:///?socket=/run/memory.socket'"
            : "name a file, a block device, or an nbd URI"
        throw ValidationError("memory does not come from \(name): \(remedy)")
    }

    /// - Throws: `ValidationError` unless this is memory that a cache is for.
    static func checkCache(for name: String) throws {
        guard isAddress(name) else { throw ValidationError("--cache is for memory from NBD servers") }
    }

    /// Whether it comes from a server, which may be restarted.
    var isRemote: Bool {
        switch self {
        case .file: false
        #if NBD
        case .nbd, .cached: true
        #endif
        }
    }

    /// Waits until what was loaded is kept.
    func flush(within limit: Duration) {
        #if NBD
        if case .cached(_, let cache, _, _) = self { cache.flush(within: limit) }
        #endif
    }

    /// Differs if the content does, as far as the file or server tells.
    var identity: String {
        switch self {
        case .file(let file): file.identity
        #if NBD
        case .nbd(let source, let export): "\(source.export.byteCount) bytes of \(export)"
        case .cached(_, _, let count, let export): "\(count) bytes of \(export)"
        #endif
        }
    }

    /// Goes on serving memory from here, in place of a server that has died.
    func resume(_ memory: consuming KeptMemory, _ terms: ServiceTerms) throws -> any SessionPager {
        guard memory.record.source == identity else { throw HandoffError.notServed("its memory is another one now") }
        let end = memory.record.content.regions.reduce(0) { max($0, $1.end) }
        func check(_ byteCount: Int) throws {
            guard end <= byteCount else {
                throw HandoffError.notServed(tooShort(byteCount, needed: end))
            }
        }
        switch self {
        case .file(let file):
            let source = try file.source()
            try check(source.byteCount)
            let reporting = ReportingSource(source, terms.log)
            guard memory.file != nil else { return try memory.resume(from: reporting, terms) }
            let pages = try SharedPages(memory.file!, from: reporting, state: memory.pages)
            return try memory.resume(from: pages.source, terms)
        #if NBD
        case .nbd(let source, _):
            try check(Int(clamping: source.export.byteCount))
            return try memory.resume(from: AsynchronousSource(source), terms)
        case .cached(let source, _, let count, _):
            try check(count)
            return try memory.resume(from: source, terms)
        #endif
        }
    }

    /// Begins to serve memory from here.
    func serve(_ memory: consuming HandedMemory, _ terms: ServiceTerms) throws -> any SessionPager {
        switch self {
        case .file(let file):
            let source = try file.source()
            memory = try check(memory, source.byteCount)
            let reporting = ReportingSource(source, terms.log)
            guard memory.file != nil else { return try memory.serve(from: reporting, terms) }
            let pages = try SharedPages(memory.file!, from: reporting, state: terms.files?.pages)
            return try memory.serve(from: pages.source, terms)
        #if NBD
        case .nbd(let source, _):
            memory = try check(memory, Int(clamping: source.export.byteCount))
            return try Self.serve(memory, from: AsynchronousSource(source), terms)
        case .cached(let source, _, let count, _):
            memory = try check(memory, count)
            return try Self.serve(memory, from: source, terms)
        #endif
        }
    }

    private func tooShort(_ byteCount: Int, needed: Int) -> String {
        let name =
            switch self {
            case .file(let file): file.path
            #if NBD
            case .nbd(_, let export), .cached(_, _, _, let export): "the NBD export '\(export)'"
            #endif
            }
        return "\(name) has \(byteCount) bytes, and the client's regions need \(needed)"
    }

    /// How many times the regions of a client may have the bytes of its source: what is known of each takes memory here.
    private static let most = 8

    /// Refuses memory that ends beyond its source, where there are zeros, which no machine must take for its memory.
    private func check(_ memory: consuming HandedMemory, _ byteCount: Int) throws -> HandedMemory {
        guard memory.sourceEnd <= byteCount else {
            throw HandoffError.notServed(tooShort(byteCount, needed: memory.sourceEnd))
        }
        let sum = memory.regions.reduce(0) { $0 + $1.range.count }
        guard sum / Self.most <= byteCount else {
            throw HandoffError.malformed(
                "the regions have \(sum) bytes, more than \(Self.most) times those of the memory")
        }
        return memory
    }

    #if NBD
    /// The name of the export in an `nbd` URI: the server's address may be another one tomorrow.
    ///
    /// An export without a name is what this server has, and no other's.
    private static func export(in uri: String) -> Substring {
        guard let scheme = uri.firstRange(of: "://") else { return "" }
        let rest = uri[scheme.upperBound...]
        let name = rest.prefix { $0 != "?" && $0 != "#" }.drop { $0 != "/" }.dropFirst()
        return name.isEmpty ? rest : name
    }

    private static func serve<Source: PageSource & ~Copyable>(
        _ memory: consuming HandedMemory, from source: consuming Source, _ terms: ServiceTerms
    ) throws -> any SessionPager {
        guard memory.file == nil else {
            throw HandoffError.malformed("a memory file is filled from files only, not from NBD")
        }
        return try memory.serve(from: source, terms)
    }
    #endif
}

/// How one client is served, wherever its memory comes from.
struct ServiceTerms {
    /// The threads that serve it, with others.
    let runtime: PagerRuntime
    let configuration: PagerConfiguration
    let options: RegionOptions
    /// Whether no page is filled at first.
    let isPaused: Bool
    /// What a successor needs.
    let files: SurvivalFiles?
    /// Is told why pages cannot be loaded.
    let log: ReportLog
}

extension KeptMemory {
    fileprivate consuming func resume<Source: PageSource & ~Copyable>(
        from source: consuming Source, _ terms: ServiceTerms
    ) throws -> any SessionPager {
        try resume(
            from: source, runtime: terms.runtime, configuration: terms.configuration, isPaused: terms.isPaused)
    }
}

extension HandedMemory {
    fileprivate consuming func serve<Source: PageSource & ~Copyable>(
        from source: consuming Source, _ terms: ServiceTerms
    ) throws -> any SessionPager {
        try serve(
            from: source, runtime: terms.runtime, configuration: terms.configuration, options: terms.options,
            isPaused: terms.isPaused, willStart: { () throws(HandoffError) in try terms.files?.noteBegun() }
        ).pager
    }
}
