import CBenchBaseline
import CUserfaultFD
import SystemPackage
import UserfaultFD
import UserfaultPager

/// `scan/PAGES` and `random/PAGES`: memory that is read through once, filled so many pages for one fault.
///
/// The content is a file that is in the page cache the whole time: what a cold file costs is the disk's.
enum ScanScenarios {
    static var all: [Scenario] {
        let windows: [Int?] = [1, 16, 64, 256, 512, nil]
        return windows.map { scan($0) } + [random]
    }

    private static func scan(_ window: Int?) -> Scenario {
        Scenario("scan/\(window.map(String.init) ?? "adaptive")", .kibibyte) { settings in
            let file = try CachedFile(bytes: settings.count(1 << 30, quick: 256 << 20))
            let target = try Mapping(anonymous: file.bytes)
            try target.advise(.noHugePage)
            let range = target.range
            let shared = Kept(target)
            func read() -> Sample {
                Processor.pin(Processor.all.first)
                let start = cbb_now()
                _ = cbb_scan(UInt64(range.start), file.bytes)
                let time = cbb_now() - start
                Processor.pin(nil)
                return Sample(nanoseconds: Double(time) / Double(file.bytes >> 10))
            }
            let request = HandlerRequest(
                waiting: .poll, call: .copy, range: range, source: file.mapped.range.start,
                window: (window ?? 512) * PageSize.base.bytes)
            func handled(by language: Handlers.Language) throws -> Sample {
                try shared.mapping.advise(.dontNeed)
                let handlers = try Handlers(language, [request], modes: .missing)
                let sample = read()
                try handlers.stop()
                return sample
            }
            var variants = [Variant("c") { try handled(by: .c) }]
            if window != nil { variants.append(Variant("swift") { try handled(by: .swift) }) }
            variants.append(
                Variant("pager") {
                    try shared.mapping.advise(.dontNeed)
                    let readAhead: RegionOptions.ReadAhead =
                        window == 1 ? .none : .adaptive(maximumPages: (window ?? 512) - 1)
                    return try PagerRun.serving(request, readAhead: readAhead) { read() }
                })
            if window == nil { variants += file.references() }
            return variants
        }
    }

    private static var random: Scenario {
        Scenario("random/1", .fault) { settings in
            let pages = settings.count(8000, quick: 1000)
            let memory = try Memory(.anonymous, pages: pages)
            var generator = SystemRandomNumberGenerator()
            let order = (0..<UInt32(pages)).shuffled(using: &generator)
            let request = HandlerRequest(
                waiting: .poll, call: .copy, range: memory.view.range, source: memory.source.range.start)
            func touch() -> Sample {
                let start = cbb_now()
                cbb_touch(memory.base, pages, memory.pageSize, order, 0, nil)
                return Sample(nanoseconds: Double(cbb_now() - start) / Double(pages))
            }
            func handled(by language: Handlers.Language) throws -> Sample {
                try memory.empty()
                let handlers = try Handlers(language, [request], modes: .missing)
                let sample = touch()
                try handlers.stop()
                return sample
            }
            return [
                Variant("c") { try handled(by: .c) },
                Variant("swift") { try handled(by: .swift) },
                Variant("pager") {
                    try memory.empty()
                    return try PagerRun.serving(request, readAhead: .adaptive()) { touch() }
                },
            ]
        }
    }

    /// Memory that closures keep.
    private final class Kept: Sendable {
        let mapping: Mapping
        init(_ mapping: consuming Mapping) { self.mapping = mapping }
    }

    /// A file whose pages are all in the page cache, and the ways of reading it without a userfaultfd.
    private final class CachedFile: Sendable {
        let bytes: Int
        let mapped: Mapping
        private let file: Memfd

        init(bytes: Int) throws {
            self.bytes = bytes
            file = try Memfd(name: "uffd-bench-file", count: bytes)
            mapped = try Mapping(file)
            cbb_touch(UInt64(mapped.range.start), bytes / 4096, 4096, nil, 1, nil)
        }

        func references() -> [Variant] {
            [
                Variant("(mmap)") { [self] in try read(populated: false) },
                Variant("(mmap, populated)") { [self] in try read(populated: true) },
                Variant("(read)") { [self] in try readCall() },
            ]
        }

        private func sample(since start: UInt64) -> Sample {
            Sample(nanoseconds: Double(cbb_now() - start) / Double(bytes >> 10))
        }

        private func read(populated: Bool) throws -> Sample {
            let start = cbb_now()
            let fresh = try Mapping(file, protection: .read, options: populated ? .populate : [])
            _ = cbb_scan(UInt64(fresh.range.start), bytes)
            return sample(since: start)
        }

        private func readCall() throws -> Sample {
            let piece = try Mapping(anonymous: 2 << 20, options: .populate)
            let start = cbb_now()
            try file.withUnsafeDescriptor { descriptor in
                for offset in stride(from: 0, to: bytes, by: piece.count) {
                    let count = cuffd_pread(
                        descriptor.rawValue, UnsafeMutableRawPointer(bitPattern: piece.range.start)!, piece.count,
                        Int64(offset))
                    guard count > 0 else { throw Unavailable(reason: "read(2) answered \(count)") }
                    _ = cbb_scan(UInt64(piece.range.start), count)
                }
            }
            return sample(since: start)
        }
    }
}
