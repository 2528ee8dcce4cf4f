import CBenchBaseline
import CUserfaultFD
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
            let pages = settings.count(4096, quick: 1024)
            let memory = try Memory(.anonymous, pages: pages)
            let request = HandlerRequest(
                waiting: .poll, call: .copy, range: memory.view.range, source: memory.source.range.start,
                processor: Processor.all.first)
            func touch() -> Sample {
                Processor.pin(Processor.all.first)
                defer { Processor.pin(nil) }
                return Sample(nanoseconds: Double(Touchers.touch(memory, threads: 1)) / Double(pages))
            }
            return [
                Variant("c") {
                    try memory.empty()
                    let running = try Handlers(.c, [request], modes: .missing)
                    let sample = touch()
                    try running.stop()
                    return sample
                },
                Variant("pager") {
                    try memory.empty()
                    return try PagerRun.serving(request, regions: count) { touch() }
                },
            ]
        }
    }

    private static func scenario(_ threads: Int, _ handlers: Int) -> Scenario {
        Scenario("scale/\(threads)x\(handlers)", .fault) { settings in
            let pages = settings.count(4000, quick: 800) / threads * threads
            let memory = try Memory(.anonymous, pages: pages)
            func request(_ range: AddressRange) -> HandlerRequest {
                HandlerRequest(
                    waiting: .poll, call: .copy, batch: 16, range: range,
                    source: memory.source.range.start + (range.start - memory.view.range.start))
            }
            let whole = request(memory.view.range)
            func touch() -> Sample {
                Sample(nanoseconds: Double(Touchers.touch(memory, threads: threads)) / Double(pages))
            }
            func handled(by language: Handlers.Language) throws -> Sample {
                try memory.empty()
                let running = try Handlers(
                    language, [HandlerRequest](repeating: whole, count: handlers), modes: .missing)
                let sample = touch()
                try running.stop()
                return sample
            }
            var variants = [
                Variant("c") { try handled(by: .c) },
                Variant("swift") { try handled(by: .swift) },
                Variant("pager") {
                    try memory.empty()
                    return try PagerRun.serving(whole, handlers: handlers) { touch() }
                },
            ]
            if handlers > 1 {
                variants.append(
                    Variant("pager, \(handlers) descriptors") {
                        try memory.empty()
                        return try PagerRun.serving(whole, shards: handlers) { touch() }
                    })
                variants.append(
                    Variant("c, \(handlers) descriptors") {
                        try memory.empty()
                        let part = pages / handlers * memory.pageSize
                        let running = try (0..<handlers).map { index in
                            let range = memory.view.range.part(at: index * part, count: part)
                            return try Handlers(.c, [request(range)], modes: .missing)
                        }
                        let sample = touch()
                        for handler in running { try handler.stop() }
                        return sample
                    })
            }
            return variants
        }
    }
}

/// Threads that touch their own part of memory each, all at once.
enum Touchers {
    private final class Part: Sendable {
        let base: UInt64
        let pages: Int
        let pageSize: Int

        init(base: UInt64, pages: Int, pageSize: Int) {
            self.base = base
            self.pages = pages
            self.pageSize = pageSize
        }
    }

    /// Answers how long it took until the last was done.
    static func touch(_ memory: Memory, threads count: Int) -> UInt64 {
        let pages = memory.pages / count
        let start = cbb_now()
        let threads = (0..<count).map { index -> cuffd_thread_t in
            let part = Part(
                base: memory.base + UInt64(index * pages * memory.pageSize), pages: pages, pageSize: memory.pageSize)
            var thread: cuffd_thread_t = 0
            let answer = cuffd_thread_create(
                &thread, "toucher", 0,
                {
                    let part = Unmanaged<Part>.fromOpaque($0!).takeRetainedValue()
                    cbb_touch(part.base, part.pages, part.pageSize, nil, 1, nil)
                }, Unmanaged.passRetained(part).toOpaque())
            precondition(answer == 0, "no thread: errno \(-answer)")
            return thread
        }
        for thread in threads { _ = cuffd_thread_join(thread, -1) }
        return cbb_now() - start
    }
}
