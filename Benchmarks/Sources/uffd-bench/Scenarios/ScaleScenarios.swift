import CBenchBaseline
import UserfaultFD

/// `scale/THREADSxHANDLERS`: many threads fault at once, on one descriptor or on one for each handler.
///
/// `scale/regions/COUNT`: the same memory, as so many regions of a pager.
enum ScaleScenarios {
    static var all: [Scenario] {
        var scenarios: [Scenario] = []
        for threads in [1, 2, 4, 8] {
            for handlers in [1, 2] { scenarios.append(scenario(threads, handlers)) }
        }
        return scenarios + [1, 16, 256].map(regions)
    }

    private static func regions(_ count: Int) -> Scenario {
        Scenario("scale/regions/\(count)", .fault) { settings in
            let memory = try Memory(.anonymous, pages: settings.count(4096, quick: 1024))
            let request = HandlerRequest(
                waiting: .poll, call: .copy, range: memory.view.range, source: memory.source.range.start,
                processor: Processor.all.first)
            func touch() -> Sample {
                let start = cbb_now()
                memory.populate()
                return Sample(cbb_now() - start, units: memory.pages)
            }
            return [
                Variant("c") {
                    try memory.empty()
                    return try Handlers.serving(.c, [request]) { touch() }
                },
                Variant("pager", .time()) {
                    try memory.empty()
                    return try PagerRun.serving(request, .init(regions: count)) { touch() }
                },
            ]
        }
    }

    private static func scenario(_ threads: Int, _ handlers: Int) -> Scenario {
        Scenario("scale/\(threads)x\(handlers)", .fault) { settings in
            let pages = settings.count(4000, quick: 800)
            let memory = try Memory(.anonymous, pages: pages)
            // The first thread faults on another processor than the first handler's.
            let team = Team((1...threads).map(Processor.inTurn))
            let served = (0..<handlers).map(Processor.inTurn)
            func request(_ range: AddressRange, handler: Int, batch: Int = 16) -> HandlerRequest {
                HandlerRequest(
                    waiting: .poll, call: .copy, batch: batch, range: range,
                    source: memory.source.range.start + (range.start - memory.view.range.start),
                    processor: served[handler])
            }
            func touch() -> Sample { Sample(team.touch(memory), units: pages) }
            func handled(by language: Handlers.Language, batch: Int = 16) throws -> Sample {
                try memory.empty()
                let requests = served.indices.map { request(memory.view.range, handler: $0, batch: batch) }
                return try Handlers.serving(language, requests) { touch() }
            }
            func paged(handlers: Int = 1, shards: Int = 1) throws -> Sample {
                try memory.empty()
                let options = PagerRun.Options(handlers: handlers, shards: shards, processors: served)
                return try PagerRun.serving(request(memory.view.range, handler: 0), options) { touch() }
            }
            let bound = threads == 8 && handlers == 1 ? 1 / 0.95 : nil
            var variants = [
                Variant("c") { try handled(by: .c) },
                Variant("swift", .time()) { try handled(by: .swift) },
                Variant("pager", .time(atMost: bound)) { try paged(handlers: handlers) },
            ]
            if threads == 8 && handlers == 1 {
                variants.append(Variant("c, 1 message a read", .time()) { try handled(by: .c, batch: 1) })
            }
            guard handlers > 1 else { return variants }
            let apart = "c, \(handlers) descriptors"
            variants.append(
                Variant(apart, .time()) {
                    try memory.empty()
                    let part = pages / handlers * memory.pageSize
                    let running = try served.indices.map { index in
                        let range = memory.view.range.part(at: index * part, count: part)
                        return try Handlers(.c, [request(range, handler: index)], modes: .missing)
                    }
                    defer { for handler in running { handler.stop() } }
                    return touch()
                })
            variants.append(
                Variant("pager, \(handlers) descriptors", .time(of: apart)) { try paged(shards: handlers) })
            return variants
        }
    }
}
