import CBenchBaseline
import CUserfaultFD
import SystemPackage
import UserfaultFD

/// `dirty/WAY`: finding out which pages were written, for each page that was.
enum DirtyScenarios {
    static var all: [Scenario] {
        [
            Scenario("dirty/wp-sync", .page, gates: [:], prepare: synchronous),
            Scenario("dirty/wp-async-scan", .page, gates: ["swift": 1.05], prepare: asynchronous),
            Scenario("dirty/soft-dirty", .page, prepare: softDirty),
            Scenario("dirty/mprotect-sigsegv", .page, prepare: signal),
        ]
    }

    private static func populated(_ settings: Settings) throws -> Memory {
        let memory = try Memory(.anonymous, pages: settings.count(8192, quick: 2048))
        memory.populate()
        return memory
    }

    private static func write(_ memory: Memory) -> UInt64 {
        let start = cbb_now()
        cbb_touch(memory.base, memory.pages, memory.pageSize, nil, 1, nil)
        return cbb_now() - start
    }

    private static func synchronous(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        let request = HandlerRequest(waiting: .poll, call: .unprotect, range: memory.view.range)
        func handled(by language: Handlers.Language) throws -> Sample {
            let handlers = try Handlers(language, [request], modes: .writeProtect)
            try handlers.protect(memory.view.range)
            let time = write(memory)
            try handlers.stop()
            return Sample(nanoseconds: Double(time) / Double(memory.pages))
        }
        return [Variant("c") { try handled(by: .c) }, Variant("swift") { try handled(by: .swift) }]
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
        let scan = Scan(try PagemapScan())
        return [
            Variant("c") {
                let time = write(memory)
                let start = cbb_now()
                let dirty = cbb_scan_written(pagemap.rawValue, memory.base, UInt64(memory.bytes), memory.pageSize)
                let total = time + cbb_now() - start
                guard dirty == memory.pages else { throw Unavailable(reason: "the scan found \(dirty) pages") }
                return Sample(nanoseconds: Double(total) / Double(memory.pages))
            },
            Variant("swift") {
                let time = write(memory)
                let start = cbb_now()
                let dirty = try scan.takeWritten(memory.view.range)
                let total = time + cbb_now() - start
                guard dirty == memory.pages else { throw Unavailable(reason: "the scan found \(dirty) pages") }
                _ = shared.uffd.isNegotiated
                return Sample(nanoseconds: Double(total) / Double(memory.pages))
            },
        ]
    }

    private final class Scan {
        private let scan: PagemapScan
        init(_ scan: consuming PagemapScan) { self.scan = scan }

        func takeWritten(_ range: AddressRange) throws -> Int {
            var dirty = 0
            var rest = range
            while !rest.isEmpty {
                let result = try scan.scan(rest, for: .takeWritten)
                dirty += result.regions.reduce(0) { $0 + $1.range.count / PageSize.base.bytes }
                rest = AddressRange(start: result.end, end: range.end)
            }
            return dirty
        }
    }

    private static func softDirty(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        let pagemap = try FileDescriptor.open("/proc/self/pagemap", .readOnly, options: .closeOnExec)
        guard cbb_soft_dirty_clear() == 0 else { throw Unavailable(reason: "/proc/self/clear_refs cannot be written") }
        _ = write(memory)
        guard cbb_soft_dirty_count(pagemap.rawValue, memory.base, memory.pages) == memory.pages else {
            throw Unavailable(reason: "the kernel has no soft-dirty bits")
        }
        return [
            Variant("(soft-dirty)") {
                let start = cbb_now()
                _ = cbb_soft_dirty_clear()
                _ = write(memory)
                _ = cbb_soft_dirty_count(pagemap.rawValue, memory.base, memory.pages)
                return Sample(nanoseconds: Double(cbb_now() - start) / Double(memory.pages))
            }
        ]
    }

    private static func signal(_ settings: Settings) throws -> [Variant] {
        let memory = try populated(settings)
        return [
            Variant("(mprotect, SIGSEGV)") {
                var dirty: UInt64 = 0
                let time = cbb_touch_sigsegv(memory.base, memory.pages, memory.pageSize, &dirty)
                try memory.view.protect(.readWrite)
                return Sample(nanoseconds: Double(time) / Double(memory.pages))
            }
        ]
    }
}
