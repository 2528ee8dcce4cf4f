import CSelftestSupport
import Synchronization
import SystemPackage
import UserfaultFD

/// Protection while other processors write, and while the kernel reclaims the pages.
enum ProtectRaceCases: CaseTheme {
    private static let types: [MemoryType] = [.anon, .shmem, .shmemPrivate, .hugetlb]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-stops-writers", on: types,
            "once WRITEPROTECT has returned no thread changes a page, however it wrote it before",
            requires: [.writeProtectFaults], limit: .seconds(20), covers: [.protectionSurvives]
        ) { try stopsWriters($0, try Area($0, pages: 2)) },
        SelftestCase(
            "wp-stops-writers-huge", on: [.anon],
            "once WRITEPROTECT has returned no thread changes a transparent huge page, or the part that was protected",
            requires: [.writeProtectFaults, .transparentHugePages], limit: .seconds(20),
            covers: [.protectionSurvives]
        ) { try stopsWriters($0, try .transparentHuge($0, count: 1)) },
        SelftestCase(
            "scan-loses-nothing", on: types,
            "every write is reported by a later PAGEMAP_SCAN, though threads write while it scans and protects",
            requires: [.writeProtectFaults, .features(.writeProtectAsync)], limit: .seconds(20),
            covers: [.asyncProtection]
        ) { try losesNothing($0, try Area($0, pages: 8)) },
        SelftestCase(
            "scan-loses-nothing-huge", on: [.anon],
            "every write to a transparent huge page is reported by a later PAGEMAP_SCAN, while threads write",
            requires: [.writeProtectFaults, .features(.writeProtectAsync), .transparentHugePages], limit: .seconds(20),
            covers: [.asyncProtection]
        ) { try losesNothing($0, try .transparentHuge($0, count: 1)) },
        SelftestCase(
            "wp-reclaim-race", on: [.anon, .shmem],
            "threads that write protected pages all go on, though reclaim takes the pages away meanwhile",
            requires: [.threads(8), .writeProtectFaults, .swap], limit: .seconds(30), covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, pages: 16)
            let descriptor = Handler.Descriptor(try UserfaultFD())
            area.fillView()
            try area.swapOut(0..<16)
            try descriptor.uffd.register(area.range, modes: .writeProtect)
            let handler = try Handler(descriptor) { fault in
                try descriptor.uffd.writeProtect(fault.page(size: area.pageSize), .unprotect)
            }
            let crew = Crew()
            for half in 0..<2 {
                let addresses = stride(from: half, to: 16, by: 2).map { area.address($0) + 8 }
                try crew.add("writer") { write(addresses, of: crew) }
            }
            let rounds = Atomic<Int>(0)
            try crew.add("reclaimer") {
                while !crew.shouldStop {
                    try descriptor.uffd.writeProtect(area.range, .protect)
                    try area.alias?.advise(.dontNeed)
                    try area.view.advise(.pageOut)
                    rounds.add(1, ordering: .relaxed)
                }
            }
            try crew.work(for: .milliseconds(200), "20 rounds and 20 faults") {
                rounds.load(ordering: .relaxed) >= 20 && handler.counts.writeProtect >= 20
            }
            try crew.join(within: Waiting.patience, "a thread that writes protected pages goes on")
            context.record("\(rounds.load(ordering: .relaxed)) rounds, \(try handler.stop().writeProtect) faults")
            try descriptor.uffd.expectWaiters(pending: 0, total: 0, "in the end")
            for page in 0..<16 {
                let right = Pattern.word(seed: 0, page: page, index: 2)
                try expectEqual(word(area.address(page) + 16), right, "the third word of page \(page)")
            }
        },
    ]

    /// What a page begins with, read as the processor has it.
    private static func word(_ address: UInt) -> UInt64 {
        var word: UInt64 = 0
        _ = css_copy_in(&word, address, MemoryLayout<UInt64>.size, nil)
        return word
    }

    /// Writes numbers that grow to each of these addresses in turn, until the crew is to stop.
    private static func write(_ addresses: [UInt], of crew: Crew) {
        var number: UInt64 = 1
        while !crew.shouldStop {
            for address in addresses { _ = css_copy_out(address, &number, MemoryLayout<UInt64>.size, nil) }
            number += 1
        }
    }

    private static func stopsWriters(_ context: CaseContext, _ area: Area) throws {
        let uffd = try UserfaultFD()
        area.fillView()
        try uffd.register(area.range, modes: .writeProtect)
        let pages = [0, area.pageCount - 1]
        let crew = Crew()
        for page in pages { try crew.add("writer") { write([area.address(page)], of: crew) } }
        var batch = EventBatch(capacity: 4)
        var writes = 0
        var last: UInt64 = 0
        for round in 0..<60 {
            // All, and only one of the pages: of a huge page that is a part.
            let part = round % 2 == 0 ? area.range : area.page(pages[1])
            try uffd.writeProtect(part, .protect)
            let before = word(area.address(pages[1]))
            for look in 0..<400 {
                let now = word(area.address(pages[1]))
                try expectEqual(now, before, "what the protected page begins with, look \(look) of round \(round)")
            }
            if before != last { writes += 1 }
            last = before
            try uffd.writeProtect(part, .unprotect)
            // A thread that faulted before may begin to wait only now, and needs an answer.
            try Waiting.until("the writer goes on") {
                while try uffd.read(into: &batch) > 0 {
                    while batch.nextPageFault() != nil {}
                    try uffd.writeProtect(area.range, .unprotect)
                }
                return word(area.address(pages[1])) != before
            }
        }
        crew.stop()
        try crew.join("the writers stop")
        context.record("\(writes) of 60 times the page was written in between")
    }

    private static func losesNothing(_ context: CaseContext, _ area: Area) throws {
        let uffd = try UserfaultFD(features: .writeProtectAsync)
        area.fillView()
        try uffd.register(area.range, modes: .writeProtect)
        let scan = try PagemapScan()
        var known = [UInt64](repeating: 0, count: area.pageCount)
        var reports = 0
        func take() throws {
            for region in try scan.scan(area.range, for: .takeWritten).regions {
                let first = Int(region.range.start - area.range.start) / area.pageSize.bytes
                for page in first..<first + region.range.count / area.pageSize.bytes {
                    known[page] = word(area.address(page))
                    reports += 1
                }
            }
        }
        try take()
        let crew = Crew()
        let written = stride(from: 0, to: area.pageCount, by: max(1, area.pageCount / 8)).map { $0 }
        for half in 0..<2 {
            let addresses = written.enumerated().filter { $0.offset % 2 == half }.map { area.address($0.element) }
            try crew.add("writer") { write(addresses, of: crew) }
        }
        let deadline = ContinuousClock.now + .milliseconds(100)
        let least = 2 * area.pageCount
        try Waiting.until("pages are written \(least) times", within: Waiting.patience) {
            try take()
            return reports >= least && ContinuousClock.now > deadline
        }
        crew.stop()
        try crew.join("the writers stop")
        try take()
        for page in written {
            try expectEqual(
                known[page], word(area.address(page)), "what page \(page) held when it was last reported as written")
        }
        context.record("\(reports) reports of a written page")
        try uffd.expectNoMessage("asynchronous faults make none")
    }
}
