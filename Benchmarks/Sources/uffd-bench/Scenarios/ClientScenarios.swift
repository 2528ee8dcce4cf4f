import CBenchBaseline
import UserfaultFD
import UserfaultPager

/// `scale/clients/COUNT`: so many clients of one runtime, each with a descriptor and a thread that touches scattered pages.
///
/// `random/sparse`: a large region of which little is touched, from its registration on, and what memory that takes.
enum ClientScenarios {
    static var all: [Scenario] { [clients(64), Scenario("random/sparse", .fault, prepare: sparse)] }

    // MARK: Clients

    private static func clients(_ count: Int) -> Scenario {
        Scenario("scale/clients/\(count)", .fault) { settings in
            let touched = settings.count(256, quick: 64)
            let pages = 4 * touched
            let part = pages * PageSize.base.bytes
            let all = Kept(try Mapping(anonymous: count * part))
            try all.mapping.advise(.noHugePage)
            // One content for all of them.
            let content = try Memory(.anonymous, pages: pages)
            let order = ScanScenarios.order(of: pages, count: touched)
            let team = Team((0..<count).map(Processor.inTurn))
            let requests = (0..<count).map { index in
                HandlerRequest(
                    waiting: .poll, call: .copy, batch: 16,
                    range: all.mapping.range.part(at: index * part, count: part),
                    source: content.source.range.start, processor: Processor.all.first)
            }
            func touch() -> Sample {
                withExtendedLifetime(content) {
                    Sample(team.touch(all.mapping.range, order: order), units: count * touched)
                }
            }
            return [
                Variant("c") {
                    try all.mapping.advise(.dontNeed)
                    let handler = try ClientHandler(requests)
                    defer { handler.stop() }
                    return touch()
                },
                Variant("pager", .time(atMost: 1.10, gated: false)) {
                    try all.mapping.advise(.dontNeed)
                    return try PagerRun.servingClients(requests, touch)
                },
                Variant(reference: "c, a thread for each") {
                    try all.mapping.advise(.dontNeed)
                    let handlers = try requests.enumerated().map { index, request in
                        var request = request
                        request.processor = Processor.inTurn(index)
                        return try Handlers(.c, [request], modes: .missing)
                    }
                    defer { for handler in handlers { handler.stop() } }
                    return touch()
                },
            ]
        }
    }

    // MARK: Sparse memory

    /// Pages of zeros here and there: all else is a hole.
    private struct SparseSource: PageSource {
        let zeros: UInt
        /// Where its pages are, in order.
        let pages: [UInt32]

        func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
            .memory(at: zeros + UInt(offset), count: PageSize.base.bytes)
        }

        func extent(from offset: Int) -> Range<Int>? {
            let page = UInt32(offset / PageSize.base.bytes)
            var low = 0
            var high = pages.count
            while low < high {
                let middle = (low + high) / 2
                if pages[middle] >= page { high = middle } else { low = middle + 1 }
            }
            guard low < pages.count else { return nil }
            let start = Int(pages[low]) * PageSize.base.bytes
            return start..<start + PageSize.base.bytes
        }
    }

    private static func sparse(_ settings: Settings) throws -> [Variant] {
        let bytes = 4 << 30
        let target: Kept
        let zeros: Kept
        do throws(UserfaultError) {
            target = Kept(try Mapping(anonymous: bytes, options: .noReserve))
            try target.mapping.advise(.noHugePage)
            // Read-only, so that it takes nothing but page tables, once and for all variants.
            zeros = Kept(try Mapping(anonymous: bytes, protection: .read))
        } catch {
            throw Unavailable(reason: "no room for a region of 4 GiB: \(error)")
        }
        let order = ScanScenarios.order(of: target.mapping.pageCount, count: 1024)
        let request = HandlerRequest(
            waiting: .poll, call: .copy, range: target.mapping.range, source: zeros.mapping.range.start,
            processor: Processor.all.first)
        func restored(_ serving: (() -> Void) throws -> Void) throws -> Sample {
            try target.mapping.advise(.dontNeed)
            let before = try Resident.baseline()
            let start = cbb_now()
            var time: UInt64 = 0
            var grown = 0
            try serving {
                cbb_touch(UInt64(request.range.start), order.count, PageSize.base.bytes, order, 1, nil)
                time = cbb_now() - start
                grown = (try? Resident.bytes()).map { $0 - before } ?? 0
            }
            return Sample(time, units: order.count, residentBytes: grown)
        }
        return [
            Variant("c") { try restored { touch in try Handlers.serving(.c, [request], touch) } },
            Variant("pager", .time(atMost: 1.10)) {
                try restored { touch in
                    let source = SparseSource(zeros: zeros.mapping.range.start, pages: order.sorted())
                    try PagerRun.serving(request, from: source, touch)
                }
            },
        ]
    }
}
