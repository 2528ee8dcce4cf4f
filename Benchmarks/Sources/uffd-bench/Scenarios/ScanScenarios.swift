import CBenchBaseline
import UserfaultFD
import UserfaultPager

/// `scan/PAGES` and `random/PAGES`: memory that is read through once, or touched at random, filled from a cached file so
/// many pages for one fault.
///
/// The handler is on the reading thread's processor: both wait for each other in any case.
enum ScanScenarios {
    static var all: [Scenario] {
        [1, 16, 64, 256, 512, nil].map(scan) + [1, 16, 64].map(random)
    }

    /// As much as takes about the time of the others: a fault for each page is slow.
    private static func size(_ window: Int?, _ settings: Settings) -> Int {
        switch window {
        case 1: settings.count(64 << 20, quick: 16 << 20)
        case 16: settings.count(256 << 20, quick: 64 << 20)
        default: settings.count(1 << 30, quick: 256 << 20)
        }
    }

    /// Memory that is filled from the file, a window for each fault.
    private struct Target {
        let file: CachedFile
        let memory: Kept
        let request: HandlerRequest
        /// What a run brings in at most, in bytes.
        let filled: Int

        init(_ file: CachedFile, window: Int, faults: Int) throws {
            let target = try Mapping(anonymous: file.bytes)
            try target.advise(.noHugePage)
            self.file = file
            request = HandlerRequest(
                waiting: .poll, call: .copy, range: target.range, source: file.mapped.range.start,
                window: window * PageSize.base.bytes, processor: Processor.all.first)
            memory = Kept(target)
            filled = min(file.bytes, faults * window * PageSize.base.bytes)
        }

        private func empty() throws {
            try memory.mapping.advise(.dontNeed)
            try Memory.warmHost(filled)
        }

        func handled(by language: Handlers.Language, _ work: () throws -> Sample) throws -> Sample {
            try empty()
            return try Handlers.serving(language, [request], work)
        }

        func paged(_ readAhead: RegionOptions.ReadAhead, _ work: () throws -> Sample) throws -> Sample {
            try empty()
            return try PagerRun.serving(request, .init(readAhead: readAhead), work)
        }
    }

    /// Without a number of pages: the pager as it is without options, against C that fills 512 pages for each fault.
    private static func scan(_ window: Int?) -> Scenario {
        Scenario("scan/\(window.map(String.init) ?? "adaptive")", .kibibyte) { settings in
            let file = try CachedFile(bytes: size(window, settings))
            let target = try Target(file, window: window ?? 512, faults: file.pages)
            func read() throws -> Sample {
                let start = cbb_now()
                let sum = cbb_scan(UInt64(target.request.range.start), file.bytes)
                let time = cbb_now() - start
                try file.check(sum)
                return Sample(time, units: file.bytes >> 10)
            }
            let readAhead =
                window.map { $0 == 1 ? .none : .adaptive(maximumPages: $0 - 1) } ?? RegionOptions().readAhead
            let promised = window == nil || window == 512 ? 1 / 0.95 : nil
            let c = Variant("c") { try target.handled(by: .c, read) }
            let pager = Variant("pager", .time(atMost: promised)) { try target.paged(readAhead, read) }
            guard window == nil else {
                return [c, Variant("swift", .time()) { try target.handled(by: .swift, read) }, pager]
            }
            return [
                c, pager,
                Variant(reference: "mmap") { try file.read(populated: false) },
                Variant(reference: "mmap, populated") { try file.read(populated: true) },
                Variant(reference: "read") { try file.readCall() },
            ]
        }
    }

    private static func random(_ window: Int) -> Scenario {
        Scenario("random/\(window)", .fault) { settings in
            let file = try CachedFile(bytes: size(nil, settings))
            let pages = order(of: file.pages, count: settings.count(8192, quick: 1024))
            let target = try Target(file, window: window, faults: pages.count)
            func touch() -> Sample {
                let start = cbb_now()
                cbb_touch(UInt64(target.request.range.start), pages.count, PageSize.base.bytes, pages, 0, nil)
                return Sample(cbb_now() - start, units: pages.count)
            }
            let twins = [
                Variant("c") { try target.handled(by: .c, touch) },
                Variant("swift", .time()) { try target.handled(by: .swift, touch) },
            ]
            guard window == 1 else { return twins }
            // The pager's window stays shut by itself where nothing is in order.
            return twins + [
                Variant("pager", .time()) { try target.paged(RegionOptions().readAhead, touch) },
                Variant(reference: "mmap") { try file.touch(pages) },
            ]
        }
    }

    /// Some of so many pages, in an order that looks random and is the same in every run.
    static func order(of pages: Int, count: Int) -> [UInt32] {
        var generator = SplitMix(state: 42)
        return Array((0..<UInt32(pages)).shuffled(using: &generator).prefix(count))
    }

    /// Numbers that look random and are the same in every run.
    private struct SplitMix: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var word = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
            word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
            return word ^ (word >> 31)
        }
    }
}
