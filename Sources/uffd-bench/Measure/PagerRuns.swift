import UserfaultFD
import UserfaultPager

/// Pages that lie in this process' memory already, so that nothing is measured but the engine.
struct MemorySource: PageSource {
    let base: UInt

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        .memory(at: base + UInt(offset), count: pages.freeCapacity)
    }
}

/// Pages that the region's file has already.
struct FileSource: PageSource {
    var fillsFile: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        .inFile(count: pages.freeCapacity)
    }
}

/// Runs work while a pager serves its faults.
enum PagerRun {
    static func serving<Result>(
        _ request: HandlerRequest, handlers: Int = 1, shards: Int = 1, regions: Int = 1,
        readAhead: RegionOptions.ReadAhead = .none, _ work: () throws -> Result
    ) throws -> Result {
        switch request.call {
        case .copy:
            try run(MemorySource(base: request.source), request, handlers, shards, regions, readAhead, work)
        case .continue:
            try run(FileSource(), request, handlers, shards, regions, readAhead, work)
        case .zeropage, .unprotect:
            try run(ZeroSource(), request, handlers, shards, regions, readAhead, work)
        }
    }

    private static func run<Source: PageSource, Result>(
        _ source: Source, _ request: HandlerRequest, _ handlers: Int, _ shards: Int, _ regions: Int,
        _ readAhead: RegionOptions.ReadAhead, _ work: () throws -> Result
    ) throws -> Result {
        let waiting: PagerConfiguration.Waiting =
            switch request.waiting {
            case .poll: .poll
            case .block: .block
            case .spin: .spin
            case .adaptive: .adaptive(upTo: .nanoseconds(Int64(request.spinLimit)))
            }
        let configuration = PagerConfiguration(
            waiting: waiting, service: .inline, handlers: handlers, shards: shards,
            processors: request.processor.map { [$0] } ?? [])
        let uffd = try UserfaultFD(options: .init(nonBlocking: request.waiting != .block))
        let pager = try Pager(uffd, source: source, configuration: configuration)
        let options = RegionOptions(pageSize: request.pageSize, readAhead: readAhead)
        let part = request.range.count / regions
        for offset in stride(from: 0, to: regions * part, by: part) {
            try pager.add(request.range.part(at: offset, count: part), offset: offset, options: options)
        }
        try pager.start()
        defer { try? pager.stop(.populate) }
        return try work()
    }
}
