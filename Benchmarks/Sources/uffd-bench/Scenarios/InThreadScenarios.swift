import CBenchBaseline
import SystemPackage
import UserfaultFD
import UserfaultPager

/// `fault/CALL/in-thread`, `scale/THREADSx0`, `scan/in-thread` and `random/in-thread`: the thread that faults resolves its own
/// fault, in a handler of `SIGBUS`.
///
/// Promised against the same in C, and against the best handler thread on the same processor.
enum InThreadScenarios {
    static var all: [Scenario] {
        [.copy, .continue, .zeropage].map(fault) + [1, 2, 4, 8].map(scale) + [scan, random]
    }

    /// Runs work while C serves in the threads that fault.
    private static func handled<Result>(
        _ call: HandlerRequest.Call, _ range: AddressRange, source: UInt, window: Int = 1,
        _ work: () throws -> Result
    ) throws -> Result {
        let uffd = try UserfaultFD(features: .sigbus)
        try uffd.register(range, modes: call == .continue ? [.missing, .minor] : .missing)
        var request = cbb_signal_request(
            fd: uffd.withUnsafeDescriptor { $0.rawValue }, call: call.cValue, base: UInt64(range.start),
            length: UInt64(range.count), source: UInt64(source), page_size: UInt64(PageSize.base.bytes),
            window: UInt64(window * PageSize.base.bytes))
        cbb_signal_start(&request)
        defer { cbb_signal_stop() }
        return try work()
    }

    private static func fault(_ call: HandlerRequest.Call) -> Scenario {
        Scenario("fault/\(call.rawValue)/in-thread", .fault) { settings in
            let pages = settings.count(4000, quick: 1000)
            let memory = try Memory(call == .continue ? .shared : .anonymous, pages: pages)
            let request = HandlerRequest(
                waiting: .block, call: call, range: memory.view.range, source: memory.source.range.start,
                processor: Processor.all.first)
            func touch() -> Sample {
                let start = cbb_now()
                cbb_touch(memory.base, pages, memory.pageSize, nil, call == .copy ? 1 : 0, nil)
                return Sample(cbb_now() - start, units: pages)
            }
            let c = Variant("c") {
                try memory.empty()
                return try handled(call, memory.view.range, source: memory.source.range.start, touch)
            }
            let thread = Variant("c, a handler thread") {
                try memory.empty()
                return try Handlers.serving(.c, [request], modes: call == .continue ? .minor : .missing, touch)
            }
            let pager = Variant("pager", .time(atMost: 1.10), .rate(of: thread.name, atLeast: 1.3)) {
                try memory.empty()
                return try PagerRun.servingInThread(request) { touch() }
            }
            guard call == .copy else { return [c, pager, thread] }
            let other = try Memory(.anonymous, pages: pages)
            return [
                c, pager, thread,
                Variant(reference: "SIGSEGV, mprotect and memcpy") {
                    try other.empty()
                    try other.view.protect([])
                    let time = cbb_touch_mprotect(
                        other.base, pages, other.pageSize, UInt64(other.source.range.start))
                    try other.view.protect(.readWrite)
                    return Sample(time, units: pages)
                },
                Variant(reference: "mmap") { Sample(try other.firstTouch(writing: true), units: pages) },
            ]
        }
    }

    private static func scale(_ threads: Int) -> Scenario {
        Scenario("scale/\(threads)x0", .fault) { settings in
            let pages = settings.count(4000, quick: 1600)
            let memory = try Memory(.anonymous, pages: pages)
            let request = HandlerRequest(
                waiting: .block, call: .copy, range: memory.view.range, source: memory.source.range.start)
            let team = Team((0..<threads).map(Processor.inTurn))
            let c = Variant("c") {
                try memory.empty()
                return try handled(.copy, memory.view.range, source: memory.source.range.start) {
                    Sample(team.touch(memory), units: pages)
                }
            }
            func paged(_ team: Team) throws -> Sample {
                try memory.empty()
                return try PagerRun.servingInThread(request) { Sample(team.touch(memory), units: pages) }
            }
            guard threads == 2, Processor.all.count > 1 else {
                return [c, Variant("pager", .time(atMost: 1.10)) { try paged(team) }]
            }
            let alone = Team([Processor.inTurn(0)])
            let one = Variant("pager, one thread") { try paged(alone) }
            return [
                c, one,
                Variant("pager", .time(atMost: 1.10), .rate(of: one.name, atLeast: 1.8)) { try paged(team) },
            ]
        }
    }

    /// Reading in order, up to 512 pages for one fault.
    private static var scan: Scenario {
        Scenario("scan/in-thread", .kibibyte) { settings in
            let file = try CachedFile(bytes: settings.count(1 << 30, quick: 256 << 20))
            let target = Kept(try Mapping(anonymous: file.bytes))
            try target.mapping.advise(.noHugePage)
            let request = HandlerRequest(
                waiting: .adaptive, call: .copy, range: target.mapping.range, source: file.mapped.range.start,
                processor: Processor.all.first)
            func empty() throws {
                try target.mapping.advise(.dontNeed)
                try Memory.warmHost(file.bytes)
            }
            func read() throws -> Sample {
                let start = cbb_now()
                let sum = cbb_scan(UInt64(request.range.start), file.bytes)
                let time = cbb_now() - start
                try file.check(sum)
                return Sample(time, units: file.bytes >> 10)
            }
            let readAhead = RegionOptions.ReadAhead.adaptive(maximumPages: 511)
            let inline = Variant("pager, a handler thread") {
                try empty()
                return try PagerRun.serving(request, .init(readAhead: readAhead), read)
            }
            return [
                Variant("c") {
                    try empty()
                    return try handled(.copy, request.range, source: request.source, window: 512, read)
                },
                inline,
                Variant("pager", .time(atMost: 1.10), .time(of: inline.name, atMost: 1.05)) {
                    try empty()
                    return try PagerRun.servingInThread(request, .init(readAhead: readAhead), read)
                },
                Variant(reference: "mmap") { try file.read(populated: false) },
            ]
        }
    }

    private static var random: Scenario {
        Scenario("random/in-thread", .fault) { settings in
            let pages = settings.count(8192, quick: 1024)
            let memory = try Memory(.anonymous, pages: 8 * pages)
            let order = ScanScenarios.order(of: memory.pages, count: pages)
            let request = HandlerRequest(
                waiting: .block, call: .copy, range: memory.view.range, source: memory.source.range.start)
            func touch() -> Sample {
                let start = cbb_now()
                cbb_touch(memory.base, pages, memory.pageSize, order, 0, nil)
                return Sample(cbb_now() - start, units: pages)
            }
            return [
                Variant("c") {
                    try memory.empty()
                    return try handled(.copy, request.range, source: request.source, touch)
                },
                // Its window stays shut by itself where nothing is in order.
                Variant("pager", .time(atMost: 1.10)) {
                    try memory.empty()
                    return try PagerRun.servingInThread(request, .init(readAhead: RegionOptions().readAhead), touch)
                },
            ]
        }
    }
}
