import UserfaultFD
import UserfaultPager

/// Pages that lie in this process' memory already, so that nothing is measured but the engine.
struct MemorySource: PageSource {
    let base: UInt

    var isSignalSafe: Bool { true }
    var isInstant: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        .memory(at: base + UInt(offset), count: pages.freeCapacity)
    }
}

/// Pages that the region's file has already.
struct FileSource: PageSource {
    var fillsFile: Bool { true }
    var isSignalSafe: Bool { true }
    var isInstant: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        .inFile(count: pages.freeCapacity)
    }
}

/// Runs work while a pager serves its faults.
enum PagerRun {
    /// How pages that nobody touched end.
    private static let ending: Ending =
        ((try? UserfaultFD().supportedFeatures.contains(.poison)) ?? false) ? .poison : .populate

    /// How the pager is built; what a twin in C does is in its ``HandlerRequest``.
    struct Options {
        var handlers = 1
        var shards = 1
        var regions = 1
        var readAhead: RegionOptions.ReadAhead = .none
        /// Whether threads serve their own faults.
        var isInThread = false
        /// Where the handlers are kept, in turn; without any, where the request says.
        var processors: [Int] = []
    }

    /// Runs work whose faults are served in the threads that have them.
    static func servingInThread<Result>(
        _ request: HandlerRequest, _ options: Options = Options(), _ work: () throws -> Result
    ) throws -> Result {
        var options = options
        options.isInThread = true
        return try serving(request, options, work)
    }

    static func serving<Result>(
        _ request: HandlerRequest, _ options: Options = Options(), _ work: () throws -> Result
    ) throws -> Result {
        switch request.call {
        case .copy: try run(MemorySource(base: request.source), request, options, work)
        case .continue: try run(FileSource(), request, options, work)
        case .zeropage, .unprotect: try run(ZeroSource(), request, options, work)
        }
    }

    /// Runs work that touches every page which a source of the caller's has.
    static func serving<Source: PageSource, Result>(
        _ request: HandlerRequest, from source: Source, _ work: () throws -> Result
    ) throws -> Result {
        try run(source, request, Options(), ending: .leaveZeros, work)
    }

    /// Runs work while one runtime serves a pager for each request, with a handler where the first request says.
    static func servingClients<Result>(_ requests: [HandlerRequest], _ work: () throws -> Result) throws -> Result {
        let runtime = try Processor.kept(on: nil) {
            try PagerRuntime(processors: requests[0].processor.map { [$0] } ?? [])
        }
        let pagers = try requests.map { request in
            let pager = try Pager(UserfaultFD(), source: MemorySource(base: request.source), runtime: runtime)
            try pager.add(request.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            return pager
        }
        let result = try withExtendedLifetime(pagers, work)
        try runtime.stop(ending)
        return result
    }

    private static func run<Source: PageSource, Result>(
        _ source: Source, _ request: HandlerRequest, _ options: Options, ending: Ending = ending,
        _ work: () throws -> Result
    ) throws -> Result {
        // The pager looks at how many processors there are for it.
        let pager = try Processor.kept(on: nil) { try started(source, request, options) }
        let result = try work()
        try pager.stop(ending)
        return result
    }

    private static func started<Source: PageSource>(
        _ source: Source, _ request: HandlerRequest, _ options: Options
    ) throws -> Pager<Source> {
        let waiting: PagerConfiguration.Waiting =
            switch request.waiting {
            case .poll: .poll
            case .block: .block
            case .spin: .spin
            case .adaptive: PagerConfiguration().waiting
            }
        let processors = options.processors.isEmpty ? request.processor.map { [$0] } ?? [] : options.processors
        let pager = try Pager(
            UserfaultFD(
                features: options.isInThread ? .sigbus : [], options: .init(nonBlocking: request.waiting != .block)),
            source: source,
            configuration: PagerConfiguration(
                waiting: waiting, service: options.isInThread ? .inThread : .inline, handlers: options.handlers,
                shards: options.shards,
                processors: processors))
        let region = RegionOptions(pageSize: request.pageSize, readAhead: options.readAhead)
        let part = request.range.count / options.regions
        for offset in stride(from: 0, to: options.regions * part, by: part) {
            try pager.add(request.range.part(at: offset, count: part), offset: offset, options: region)
        }
        try pager.start()
        return pager
    }
}
