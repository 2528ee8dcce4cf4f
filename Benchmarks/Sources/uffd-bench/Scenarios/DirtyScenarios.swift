import CBenchBaseline
import SystemPackage
import UserfaultFD

/// `dirty/WAY`: protecting memory, writing to all of it, and finding out which pages were written, for each page.
enum DirtyScenarios {
    static var all: [Scenario] {
        [
            Scenario("dirty/wp-sync", .page, prepare: synchronous),
            Scenario("dirty/wp-async-scan", .page, prepare: asynchronous),
            Scenario("dirty/soft-dirty", .page, prepare: softDirty),
            Scenario("dirty/mprotect-sigsegv", .page, prepare: signal),
        ]
    }

    private static func populated(_ settings: Settings) throws -> Memory {
        let memory = try Memory(.anonymous, pages: settings.count(8192, quick: 2048))
        memory.populate()
        return memory
    }

    /// The time of writing to every page and of what comes before and behind it.
    private static func timed(
        _ memory: Memory, before: () throws -> Void = {}, collect: () throws -> Int64
    ) throws -> Sample {
        let start = cbb_now()
        try before()
        cbb_touch(memory.base, memory.pages, memory.pageSize, nil, 1, nil)
        let dirty = try collect()
        let time = cbb_now() - start
        guard dirty == memory.pages else {
            throw Mismeasured(description: "\(dirty) of \(memory.pages) pages were found written")
        }
        return Sample(time, units: memory.pages)
    }

    private static func synchronous(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        let request = HandlerRequest(
            waiting: .poll, call: .unprotect, range: memory.view.range, processor: Processor.all.first)
        func handled(by language: Handlers.Language) throws -> Sample {
            let handlers = try Handlers(language, [request], modes: .writeProtect)
            defer { handlers.stop() }
            // The handler has noted every page when the last write is done.
            return try timed(memory, before: { try handlers.protect(memory.view.range) }) { Int64(memory.pages) }
        }
        return [Variant("c") { try handled(by: .c) }, Variant("swift", .time()) { try handled(by: .swift) }]
    }

    private static func asynchronous(_ settings: Settings) throws -> [Variant] {
        guard try UserfaultFD().supportedFeatures.contains(.writeProtectAsync) else {
            throw Unavailable(reason: "the kernel has no WP_ASYNC")
        }
        let memory = try populated(settings)
        let shared = Registered(try UserfaultFD(features: .writeProtectAsync))
        try shared.uffd.register(memory.view.range, modes: .writeProtect)
        try shared.uffd.writeProtect(memory.view.range, .protect)
        let pagemap = try FileDescriptor.open("/proc/self/pagemap", .readOnly, options: .closeOnExec)
        let scan = Scan(try PagemapScan(), keeping: shared)
        // The scan protects anew what it has found.
        return [
            Variant("c") {
                try timed(memory) {
                    cbb_scan_written(pagemap.rawValue, memory.base, UInt64(memory.bytes), memory.pageSize)
                }
            },
            Variant("swift", .time(atMost: 1.05)) { try timed(memory) { try scan.takeWritten(memory.view.range) } },
        ]
    }

    private final class Scan {
        private let scan: PagemapScan
        private let registered: Registered

        init(_ scan: consuming PagemapScan, keeping registered: Registered) {
            self.scan = scan
            self.registered = registered
        }

        func takeWritten(_ range: AddressRange) throws -> Int64 {
            var dirty = 0
            var rest = range
            while !rest.isEmpty {
                let result = try scan.scan(rest, for: .takeWritten)
                dirty += result.regions.reduce(0) { $0 + $1.range.count / PageSize.base.bytes }
                rest = AddressRange(start: result.end, end: range.end)
            }
            return Int64(dirty)
        }
    }

    private static func softDirty(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        let pagemap = try FileDescriptor.open("/proc/self/pagemap", .readOnly, options: .closeOnExec)
        guard cbb_soft_dirty_clear() == 0 else { throw Unavailable(reason: "/proc/self/clear_refs cannot be written") }
        memory.populate()
        guard cbb_soft_dirty_count(pagemap.rawValue, memory.base, memory.pages) == memory.pages else {
            throw Unavailable(reason: "the kernel has no soft-dirty bits")
        }
        return [
            Variant(reference: "soft-dirty") {
                try timed(memory, before: { _ = cbb_soft_dirty_clear() }) {
                    cbb_soft_dirty_count(pagemap.rawValue, memory.base, memory.pages)
                }
            }
        ]
    }

    private static func signal(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        return [
            Variant(reference: "mprotect, SIGSEGV") {
                var dirty: UInt64 = 0
                let time = cbb_touch_sigsegv(memory.base, memory.pages, memory.pageSize, &dirty)
                try memory.view.protect(.readWrite)
                guard dirty == memory.pages else {
                    throw Mismeasured(description: "\(dirty) pages were noted as written")
                }
                return Sample(time, units: memory.pages)
            }
        ]
    }
}
