import SystemPackage
import UserfaultFD

/// PAGEMAP_SCAN by the list of what the kernel's own pagemap_ioctl test checks.
///
/// `Tests/UserfaultSelftestTests/Resources/pagemap-results.txt` says which case has which of its results.
enum ScanModelCases: CaseTheme {
    private static let requires: [Requirement] = [.writeProtectFaults, .features(.writeProtectAsync)]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "scan-arguments", on: [.anon],
            "PAGEMAP_SCAN takes empty ranges, no room and no masks, and refuses room without an address",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 16))
            let none = AddressRange(start: area.range.start, count: 0)
            let every: PagemapScan.Categories = [
                .writeProtectAllowed, .written, .file, .present, .swapped, .zeroPage, .huge,
            ]
            let all = RawScan().with { (scan: inout RawScan) in
                scan.all = every
                scan.reported = every
            }
            try expectEqual(try all.scan(none).count, 0, "regions of an empty range")
            let unplaced = RawScan().with { $0.room = nil }
            try expectEqual(try all.with { $0.room = 0 }.scan(area.range).count, 0, "regions without room")
            try expectEqual(try unplaced.scan(area.range).count, 0, "regions without room, at no address")
            try expect(try RawScan().with { $0.all = [] }.scan(area.range).count >= 0, "no mask is allowed")
            try expectEqual(
                try RawScan().with { (scan: inout RawScan) in
                    scan.any = .written
                    scan.reported = []
                }.scan(area.range).count, 0, "regions with nothing to report")
            try expect(
                try RawScan.take.with { (scan: inout RawScan) in
                    scan.all = []
                    scan.inverted = every
                }.scan(area.range).count >= 0, "every category may be inverted while protecting")
            for change: (inout RawScan) -> Void in [
                { $0.takes = true }, { $0.all = every }, { $0.any = every }, { $0.inverted = every },
                {
                    $0.all = every
                    $0.any = every
                },
            ] {
                let scan = all.with { (scan: inout RawScan) in
                    scan.all = []
                    change(&scan)
                }
                try expect(try scan.scan(area.range).count >= 0, "all masks are allowed", seen: "\(scan)")
            }
            // Where nothing is mapped there is nothing to find, and nothing wrong.
            let hole = try reserve(4 * PageSize.base.bytes)
            try checked(RawMemory.unmap(hole))
            let nothing = try all.with { (scan: inout RawScan) in
                scan.all = []
                scan.any = every.subtracting(.written)
            }.scan(hole)
            try expectEqual(nothing.count, 0, "regions where nothing is mapped")
        },
        SelftestCase(
            "scan-patterns", on: [.anon],
            "pages written in patterns are reported once, whether the scan is limited in regions, pages or not at all",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 1000))
            let half = area.pageCount / 2
            let even = stride(from: 0, to: area.pageCount, by: 2)
            try write(area, even)
            try expectEqual(
                try RawScan.look.scan(area.range).regions, even.map { area.page($0) }, "every other page was written")
            // In two parts: nothing is lost and nothing comes twice.
            let part = try RawScan.take.with { $0.pageLimit = UInt64(half - 2) }.scan(area.range).count
            try expectEqual(try RawScan.look.with { $0.room = 2 }.scan(area.range).count, 2, "regions that are left")
            try expectEqual(try RawScan.take.scan(area.range).count + part, half, "regions of both parts")
            try write(area, even)
            try write(area, [area.pageCount - 1])
            let most = try RawScan.take.with { $0.pageLimit = UInt64(half) }.scan(area.range)
            try expectEqual(
                most.regions.reduce(0) { $0 + $1.count } / area.pageSize.bytes, half, "pages up to the limit")
            try expectEqual(try RawScan.take.scan(area.range).regions, [area.page(area.pageCount - 1)], "the page left")
            // Two of many, and the rest as two regions.
            try write(area, 0..<area.pageCount)
            try expectEqual(
                try RawScan.take.with { (scan: inout RawScan) in
                    scan.room = 1
                    scan.pageLimit = 2
                }.scan(area.pages(1..<3)).regions, [area.pages(1..<3)], "two pages taken")
            try expectEqual(
                try RawScan.look.scan(area.range).regions, [area.page(0), area.pages(3..<area.pageCount)],
                "what was not taken")
            // Another area has its own state.
            let other = try tracked(try Area(context, pages: 10))
            try write(other, 0..<10)
            _ = try RawScan.take.scan(area.range)
            try expectEqual(try RawScan.look.scan(other.range).regions, [other.range], "written in the other area")
            // Random pages, through room for a few regions, from each end on.
            for round in 0..<4 {
                var generator = SeededGenerator(seed: round)
                let written = (0..<area.pageCount).filter { _ in Bool.random(using: &generator) }
                try write(area, written)
                var found: [Int] = []
                var start = area.range.start
                while start < area.range.end {
                    let answer = try RawScan.take.with { $0.room = 50 }.scan(
                        AddressRange(start: start, end: area.range.end))
                    for region in answer.regions {
                        let first = Int(region.start - area.range.start) / area.pageSize.bytes
                        found += first..<first + region.count / area.pageSize.bytes
                    }
                    try expect(answer.end > start, "the scan goes on", seen: "it ends where it began")
                    start = answer.end
                }
                try expectEqual(found, written, "pages found by scans for 50 regions, round \(round)")
            }
        },
        SelftestCase(
            "scan-walk-end", on: [.anon],
            "a scan that its limits end says where the next one has to begin",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 1000))
            try write(area, 0..<area.pageCount)
            let end = area.range.end
            func expectEnd(_ scan: RawScan, _ range: AddressRange, _ count: Int, _ right: [UInt], _ what: String) throws
            {
                let answer = try scan.scan(range)
                try expectEqual(answer.count, count, "regions of \(what)")
                try expectOne(of: right, answer.end, "end of \(what)")
            }
            let none = AddressRange(start: area.range.start, count: 0)
            for scan in [RawScan.look, .take, RawScan.take.with { $0.room = 0 }] {
                try expectEnd(scan, none, 0, [area.range.start], "an empty range")
            }
            func limited(_ room: Int, _ pages: UInt64) -> RawScan {
                RawScan.look.with { (scan: inout RawScan) in
                    scan.room = room
                    scan.pageLimit = pages
                }
            }
            for (room, pages) in [(1000, 0), (1, 0), (1, 1000), (1000, UInt64.max)] as [(Int, UInt64)] {
                try expectEnd(limited(room, pages), area.range, 1, [end], "all, \(room) regions, \(pages) pages")
            }
            try expectEnd(limited(1000, 500), area.range, 1, [area.address(500)], "half of the pages")
            try expectEnd(limited(1000, 1), area.range, 1, [area.address(1)], "one page")

            _ = try RawScan.take.scan(area.range)
            try write(area, stride(from: 0, to: area.pageCount, by: 2))
            for (room, pages) in [(1000, 0), (500, 1000), (1000, 1000), (1000, 500)] as [(Int, UInt64)] {
                // A scan that its limit ends at the last written page may end there.
                let right = pages == 500 ? [end, area.address(999)] : [end]
                try expectEnd(limited(room, pages), area.range, 500, right, "every other page, \(room), \(pages)")
            }
            for (room, pages) in [(1, 0), (1, 1000), (1000, 1)] as [(Int, UInt64)] {
                try expectEnd(
                    limited(room, pages), area.range, 1, [area.address(1), area.address(2)],
                    "one of every other page, \(room), \(pages)")
            }
        },
        SelftestCase(
            "scan-tracking", on: .all,
            "protected, written and protected again, pages are reported exactly when they were written",
            requires: requires, covers: [.asyncProtection]
        ) { try tracking(try Area($0, pages: 10)) },
        SelftestCase(
            "scan-tracking-large", on: [.anon],
            "tracking holds over many page tables",
            requires: requires, covers: [.asyncProtection]
        ) { try tracking(try Area($0, pages: 10 * Area.hugePageCount)) },
        SelftestCase(
            "scan-tracking-huge", on: [.anon],
            "tracking holds for a transparent huge page",
            requires: requires + [.transparentHugePages], covers: [.asyncProtection]
        ) { try tracking(try .transparentHuge($0, count: 1)) },
        SelftestCase(
            "scan-huge-halves", on: [.anon],
            "parts of transparent huge pages are protected and reported by themselves, by range and by limit",
            requires: requires + [.transparentHugePages], covers: [.asyncProtection]
        ) { context in
            let count = 2 * Area.hugePageCount
            func fresh() throws -> Area { try tracked(try .transparentHuge(context, count: 2)) }
            var area = try fresh()
            try expectEqual(try RawScan.take.scan(area.range).count, 0, "regions of protected huge pages")
            try write(area, 0..<count)
            let all = try RawScan.take.scan(area.range)
            try expectEqual(all.regions, [area.range], "all were written")
            try expectEqual(all.categories, [.written], "and only that is reported")
            area = try fresh()
            try write(area, [count / 2])
            try expectEqual(try RawScan.look.scan(area.range).regions, [area.page(count / 2)], "one page was written")

            let quarter = count / 4
            // The first part by range, the first part by limit, the last part by range.
            for (what, taken, limit) in [
                ("by range", 0..<quarter, UInt64(0)), ("by limit", 0..<quarter, UInt64(quarter)),
                ("at the end", count - quarter..<count, UInt64(0)),
            ] {
                area = try fresh()
                try write(area, 0..<count)
                let range = limit > 0 ? area.range : area.pages(taken)
                let answer = try RawScan.take.with { $0.pageLimit = limit }.scan(range)
                try expectEqual(answer.regions, [area.pages(taken)], "the part taken \(what)")
                let rest = taken.lowerBound == 0 ? taken.upperBound..<count : 0..<taken.lowerBound
                try expectEqual(
                    try RawScan.look.scan(area.range).regions, [area.pages(rest)], "the rest, part taken \(what)")
            }
        },
        SelftestCase(
            "scan-again", on: [.anon],
            "a page that is protected and written a hundred times is reported as written each time",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 1))
            for round in 0..<100 {
                try expectEqual(try RawScan.look.scan(area.range).count, 0, "regions after protecting, round \(round)")
                try expectEqual(Touch.store(area.address(0), UInt8(round)), .byte(UInt8(round)), "a write")
                try expectEqual(try RawScan.take.scan(area.range).count, 1, "regions after a write, round \(round)")
            }
        },
        SelftestCase(
            "scan-mprotect", on: [.anon],
            "mprotect, and mapping a page anew, neither hide writes nor make some up",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 16))
            // Protections of all kinds side by side, and nothing written.
            for (index, protection) in [
                MemoryProtection.readWrite, .read, .readWrite, .read, .readWrite, .none, .readWrite, .read,
            ].enumerated() {
                try checked(RawMemory.protect(area.pages(2 * index..<2 * index + 2), protection))
            }
            _ = try RawScan.take.scan(area.pages(1..<12))
            _ = try RawScan.take.scan(area.range)
            try expectEqual(try RawScan.take.scan(area.range).count, 0, "regions under mprotect")

            let pair = try tracked(try Area(context, pages: 2))
            try write(pair, 0..<2)
            try expectEqual(try RawScan.take.scan(pair.range).regions, [pair.range], "both were written")
            try expectEqual(try RawScan.look.scan(pair.range).count, 0, "regions when both are protected")
            // The second page is mapped and registered anew.
            _ = try Mapping(anonymous: pair.pageSize.bytes, placement: .replacing(pair.address(1))).release()
            let second = Handler.Descriptor(try UserfaultFD(features: .writeProtectAsync))
            try second.uffd.register(pair.page(1), modes: .writeProtect)
            try second.uffd.writeProtect(pair.page(1), .protect)
            func change(_ protections: [MemoryProtection], _ range: AddressRange) throws {
                for protection in protections { try checked(RawMemory.protect(range, protection)) }
            }
            try change([.none], pair.page(0))
            try change([.read, .readWrite], pair.range)
            try expectEqual(try RawScan.look.scan(pair.range).count, 0, "regions after mprotect alone")
            try write(pair, 0..<2)
            try change([.none, .read, .readWrite], pair.page(0))
            try expectEqual(
                try RawScan.take.scan(pair.range).regions, [pair.range], "both were written, and mprotected")
            try write(pair, 0..<2)
            try expectEqual(try RawScan.look.scan(pair.range).regions, [pair.range], "both were written once more")
        },
        SelftestCase(
            "scan-masks", on: [.anon],
            "masks select by all, any and inverted categories, and the report has the categories asked for",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try tracked(try Area(context, pages: 10))
            area.fillView()
            let both: PagemapScan.Categories = [.written, .present]
            let scans: [(String, RawScan)] = [
                ("any", RawScan().with { ($0.all, $0.any, $0.reported) = ([], both, both) }),
                ("all", RawScan().with { ($0.all, $0.reported) = (both, both) }),
                ("all and any", RawScan().with { ($0.all, $0.any, $0.reported) = (.written, .present, both) }),
            ]
            for (what, scan) in scans {
                let answer = try scan.scan(area.range)
                try expectEqual(answer.regions, [area.range], "pages by \(what)")
                try expectEqual(answer.categories, [both], "categories by \(what)")
            }
            for category in [PagemapScan.Categories.written, .present] {
                let not = RawScan().with { ($0.all, $0.inverted, $0.reported) = (category, category, both) }
                try expectEqual(try not.scan(area.range).count, 0, "regions that are not \(category)")
            }
            let taken = try RawScan.take.with { ($0.all, $0.any) = ([], both) }.scan(area.range)
            try expectEqual(taken.categories, [.written], "only what is asked for is reported")

            // A file's pages are a file's, read and, through a private mapping, written.
            let file = try FileDescriptor.open("/proc/self/exe", .readOnly, options: .closeOnExec)
            let size = PageSize.base.bytes
            let mapped = try Mapping(file: file, count: 4 * size, sharing: .private, protection: .read).release()
            for page in 0..<4 { _ = Touch.load(mapped.start + UInt(page * size)) }
            let seen = try RawScan().with { ($0.all, $0.any, $0.reported) = ([], [.file, .present], .file) }.scan(
                mapped)
            try expectEqual(seen.regions, [mapped], "pages of a file")
            try expectEqual(seen.categories, [.file], "their category")
            try checked(RawMemory.protect(mapped, .readWrite))
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(mapped, modes: .writeProtect)
            try uffd.writeProtect(mapped, .protect)
            for page in 0..<4 { try expectEqual(Touch.store(mapped.start + UInt(page * size), 1), .byte(1), "a write") }
            let written = RawScan().with { $0.any = [.present, .swapped, .file] }
            try expectEqual(try written.scan(mapped).regions, [mapped], "pages of a file that were written")
        },
        SelftestCase(
            "scan-zero-page", on: [.anon],
            "the zero page is told from others, and the huge zero page too",
            requires: requires + [.transparentHugePages], covers: [.asyncProtection]
        ) { context in
            let zero = RawScan().with { ($0.all, $0.reported) = (.zeroPage, .zeroPage) }
            let area = try Area(context, pages: 10)
            try checked(RawMemory.advise(area.range, .noHugePage))
            for page in 0..<10 { _ = Touch.load(area.address(page)) }
            try expectEqual(try zero.scan(area.range).regions, [area.range], "pages that are the zero page")
            try write(area, [3])
            try expectEqual(try zero.scan(area.range).regions, [area.pages(0..<3), area.pages(4..<10)], "without one")
            let huge = try Area(context, pages: Area.hugePageCount, alignment: Area.hugePageBytes)
            try huge.view.advise(.hugePage)
            _ = Touch.load(huge.address(1))
            guard try PagemapEntry(of: huge.address(2)).isPresent else {
                return context.record("the kernel maps no huge zero page")
            }
            let found = try zero.scan(huge.range).regions
            // Before Linux 6.16 the huge zero page was taken for an ordinary one.
            if found.isEmpty {
                context.record("the huge zero page does not count as the zero page")
            } else {
                try expectEqual(found, [huge.range], "the huge zero page")
            }
        },
        SelftestCase(
            "scan-dropped-huge", on: [.anon],
            "a transparent huge page that is dropped counts as written, and is armed again",
            requires: requires + [.transparentHugePages], covers: [.asyncProtection]
        ) { context in
            let area = try Area.transparentHuge(context, count: 1)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(area.range, modes: .writeProtect)
            _ = try RawScan.take.scan(area.range)
            try expectEqual(try RawScan.look.scan(area.range).count, 0, "regions after protecting")
            try area.zapView()
            try expectEqual(try RawScan.take.scan(area.range).regions, [area.range], "written after it was dropped")
            try expectEqual(try RawScan.look.scan(area.range).count, 0, "regions when it was taken")
        },
    ]

    /// An area that a descriptor which lives on tracks, all of it protected.
    private static func tracked(_ area: Area) throws -> Area {
        let descriptor = Handler.Descriptor(try UserfaultFD(features: .writeProtectAsync))
        try descriptor.uffd.register(area.range, modes: .writeProtect)
        try descriptor.uffd.writeProtect(area.range, .protect)
        _ = Unmanaged.passRetained(descriptor)
        return area
    }

    private static func write(_ area: Area, _ pages: some Sequence<Int>) throws {
        for page in pages { try expectEqual(Touch.store(area.address(page), 7), .byte(7), "a write to page \(page)") }
    }

    /// The six steps that the kernel's test does with every kind of memory.
    private static func tracking(_ bare: Area) throws {
        let area = try tracked(bare)
        let count = area.pageCount
        try expectEqual(try RawScan.take.scan(area.range).count, 0, "regions of new pages")
        try write(area, 0..<count)
        try expectEqual(try RawScan.look.scan(area.range).regions, [area.range], "all were written")
        _ = try RawScan.take.scan(area.range)
        try write(area, 1..<count - 1)
        try expectEqual(try RawScan.take.scan(area.range).regions, [area.pages(1..<count - 1)], "but two were written")
        try expectEqual(try RawScan.look.scan(area.range).count, 0, "regions after taking")
        try write(area, [count / 2])
        try expectEqual(try RawScan.look.scan(area.range).regions, [area.page(count / 2)], "the middle was written")
        try write(area, [count / 2 + 1])
        let middle = area.pages(count / 2..<count / 2 + 2)
        let both = try RawScan.look.with { $0.reported = [.written, .huge] }.scan(middle)
        try expectEqual(both.regions, [middle], "two in the middle were written, seen from there")
    }
}
