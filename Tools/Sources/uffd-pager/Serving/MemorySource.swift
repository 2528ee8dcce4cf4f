import ArgumentParser
import Logging
import SystemPackage
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

/// Where the memory of machines comes from: a file, a block device, or an export of an NBD server.
enum MemorySource: Sendable {
    case file(MemoryFile, ChecksumFile?)
    #if NBD
    case remote(RemoteMemory)
    #endif

    /// The schemes of NBD servers' addresses.
    static let schemes = ["nbd", "nbds", "nbd+unix", "nbds+unix"]

    /// Whether this is the URI of an NBD server, and not a path.
    static func isAddress(_ name: String) -> Bool {
        schemes.contains { name.hasPrefix($0 + ":") }
    }

    /// What is to be kept of a memory, and what it is compared with.
    struct Keeping {
        var cache: MemoryCache?
        /// Which version of the memory it is, if that was said.
        var revision: String?
        var checksums: ChecksumFile?
        /// Whether its server may come later: machines are there that have lost theirs.
        var waits = false
    }

    /// - Parameters:
    ///   - name: A path, or an `nbd` URI.
    ///   - tls: How to identify the server of an `nbds` URI.
    ///   - keeping: A cache for what a server has sent, and checksums.
    ///   - logger: Is told what happens to the server.
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``; `ValidationError` for a file with a cache, and for certificates
    ///   that are not used.
    init(_ name: String, tls: TLSOptions, keeping: Keeping, logger: Logger) throws {
        try Self.check(name)
        try tls.check(for: name)
        guard Self.isAddress(name) else {
            if keeping.cache != nil { try Self.checkCache(for: name) }
            let file = try MemoryFile(name)
            try keeping.checksums?.check(file.source().byteCount, of: name)
            self = .file(file, keeping.checksums)
            return
        }
        #if NBD
        let origin = RemoteMemory.Origin(
            uri: name, tls: tls, revision: keeping.revision, cache: keeping.cache, checksums: keeping.checksums,
            logger: logger)
        self = .remote(try RemoteMemory(origin, waits: keeping.waits))
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
            : "name a file, a block device, or an nbd, nbds, nbd+unix or nbds+unix URI, in small letters"
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
        case .remote: true
        #endif
        }
    }

    /// Waits until what was loaded is kept.
    func flush(within limit: Duration) {
        #if NBD
        if case .remote(let memory) = self { memory.flush(within: limit) }
        #endif
    }

    /// Differs if the content does, as far as the file or server tells.
    ///
    /// Waits for a server that may come later.
    ///
    /// - Throws: `HandoffError` if it has not come in time.
    func identity(within limit: Duration) throws -> String {
        switch self {
        case .file(let file, _): return file.identity
        #if NBD
        case .remote(let memory): return memory.identity(try Self.byteCount(of: memory, within: limit))
        #endif
        }
    }

    #if NBD
    private static func byteCount(of memory: RemoteMemory, within limit: Duration) throws -> Int {
        guard let count = memory.byteCount(within: limit) else {
            throw HandoffError.notServed("the NBD server of '\(memory.export)' is gone, and has not come back in time")
        }
        return count
    }
    #endif

    /// Goes on serving memory from here, in place of a server that has died.
    func resume(_ memory: consuming KeptMemory, _ terms: ServiceTerms) throws -> any SessionPager {
        let identity = memory.record.source
        let end = memory.record.content.regions.reduce(0) { max($0, $1.end) }
        func check(_ byteCount: Int, _ isSame: Bool) throws {
            guard isSame else { throw HandoffError.notServed(Self.isAnother) }
            guard end <= byteCount else {
                throw HandoffError.notServed(tooShort(byteCount, needed: end))
            }
        }
        switch self {
        case .file(let file, let checksums):
            let source = try file.source()
            try check(source.byteCount, identity == file.identity)
            guard let checksums else { return try Self.resume(memory, fromFile: source, terms) }
            return try Self.resume(memory, fromFile: VerifiedSource(source, checksums.content), terms)
        #if NBD
        case .remote(let remote):
            let kept = KeptExport(remote, identity: identity)
            try check(kept?.byteCount ?? 0, kept != nil)
            // The server holds neither the memory nor its client.
            let (owner, expected, log) = (memory.owner, kept!.byteCount, terms.log)
            remote.whenOpened { byteCount in
                guard byteCount != expected else { return }
                log.noteLost(Self.isAnother, Fate(of: owner))
            }
            return try memory.resume(from: AsynchronousSource(kept!), terms)
        #endif
        }
    }

    private static let isAnother = "its memory is another one now"

    private static func resume<Source: PageSource & ~Copyable>(
        _ memory: consuming KeptMemory, fromFile source: consuming Source, _ terms: ServiceTerms
    ) throws -> any SessionPager {
        let reporting = ReportingSource(source, terms.log)
        guard memory.file != nil else { return try memory.resume(from: reporting, terms) }
        let pages = try SharedPages(
            memory.file!, from: reporting, count: memory.record.content.regions.map(\.end).max(), state: memory.pages)
        return try memory.resume(from: pages.source, terms)
    }

    /// Begins to serve memory from here.
    func serve(_ memory: consuming HandedMemory, _ terms: ServiceTerms) throws -> any SessionPager {
        switch self {
        case .file(let file, let checksums):
            let source = try file.source()
            memory = try check(memory, source.byteCount)
            guard let checksums else { return try Self.serve(memory, fromFile: source, terms) }
            return try Self.serve(memory, fromFile: VerifiedSource(source, checksums.content), terms)
        #if NBD
        case .remote(let remote):
            memory = try check(memory, Self.byteCount(of: remote, within: terms.patience))
            guard memory.file == nil else {
                throw HandoffError.malformed("a memory file is filled from files only, not from NBD")
            }
            return try memory.serve(from: AsynchronousSource(remote), terms)
        #endif
        }
    }

    private static func serve<Source: PageSource & ~Copyable>(
        _ memory: consuming HandedMemory, fromFile source: consuming Source, _ terms: ServiceTerms
    ) throws -> any SessionPager {
        let reporting = ReportingSource(source, terms.log)
        guard memory.file != nil else { return try memory.serve(from: reporting, terms) }
        let pages = try SharedPages(
            memory.file!, from: reporting, count: memory.sourceEnd, state: terms.files?.pages)
        return try memory.serve(from: pages.source, terms)
    }

    private func tooShort(_ byteCount: Int, needed: Int) -> String {
        let name =
            switch self {
            case .file(let file, _): file.path
            #if NBD
            case .remote(let memory): "the NBD export '\(memory.export)'"
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
}

/// How one client is served, wherever its memory comes from.
struct ServiceTerms {
    /// The threads that serve it, with others.
    let runtime: PagerRuntime
    let configuration: PagerConfiguration
    let options: RegionOptions
    /// How long a new client's server may take to come.
    let patience: Duration
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
