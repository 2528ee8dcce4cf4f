import Glibc
import SystemPackage
import UserfaultFD

/// Fills and transparent huge pages: in the file, at the destination, and made of what was filled.
enum FillHugeCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "continue-huge-tail", on: [.shmem, .shmemPrivate],
            "CONTINUE of one page inside a huge page of the file maps that very page, as the file's",
            requires: [.minorFaults, .shmemHugePages], limit: .seconds(30), covers: [.continueHugeTail, .hugePagePart]
        ) { context in
            let file = try Memfd(count: 2 * huge.bytes)
            let place = try reserve(2 * huge.bytes, alignment: huge.bytes)
            let alias = try Mapping(file, placement: .replacing(place.start))
            try alias.advise(.hugePage)
            for page in 0..<2 * count {
                Pattern.write(seed: 1, page: page, at: alias.page(page).start, count: PageSize.base.bytes)
            }
            guard try MappingAccount(holding: place.start)["ShmemPmdMapped"] >= huge.bytes / 1024 else {
                try context.skip("the file has got no huge pages")
            }
            // At an odd place, so that only single pages can be mapped.
            let elsewhere = try reserve(2 * huge.bytes + PageSize.base.bytes, alignment: huge.bytes)
            let view = try Mapping(
                file, sharing: context.memory.isPrivate ? .private : .shared,
                placement: .replacing(elsewhere.start + UInt(PageSize.base.bytes)))
            let uffd = try UserfaultFD()
            try uffd.register(view.range, modes: .minor)
            let blocks = try file.status().blocks
            for page in [1, count / 2 + 3, count + 77, 2 * count - 1] {
                let range = view.page(page)
                let touch = try Touch.read(range.start)
                try uffd.expectFault(at: range.start, .minor)
                try uffd.raw(.continue, range).expectDone(range.count)
                try touch.finish(with: Pattern.byte(seed: 1, page: page))
                try Pattern.expect(seed: 1, page: page, at: range.start, count: range.count, "the view")
                let entry = try PagemapEntry(of: range.start)
                try expect(entry.isPresent && entry.isFile, "the page of the view is the file's", seen: "\(entry)")
                try expectEqual(
                    entry.frame, PagemapEntry(of: alias.page(page).start).frame, "page frame of view and alias")
                try expectEqual(uffd.raw(.continue, range), .failed(.fileExists), "CONTINUE repeated")
                for neighbour in [page - 1, page + 1] where neighbour < 2 * count {
                    let entry = try PagemapEntry(of: view.page(neighbour).start)
                    try expect(!entry.isPresent, "page \(neighbour) beside it is not mapped", seen: "\(entry)")
                }
            }
            let account = try MappingAccount(holding: view.range.start)
            try expectEqual(account["Rss"], 4 * PageSize.base.bytes / 1024, "Rss of the view in smaps, KiB")
            try expectEqual(account["Anonymous"], 0, "Anonymous of the view in smaps, KiB")
            try expectEqual(file.status().blocks, blocks, "st_blocks after CONTINUE")
            let written = view.page(count + 77).start
            try expectEqual(Touch.store(written, 0xEE), .byte(0xEE), "a write to the view")
            let kept = context.memory.isPrivate ? Pattern.byte(seed: 1, page: count + 77) : 0xEE
            try expectEqual(Touch.load(alias.page(count + 77).start), .byte(kept), "the same byte, in the file")
            try uffd.expectNoMessage("every page touched was continued")
        },
        SelftestCase(
            "fill-onto-huge", on: [.anon],
            "a fill where a huge page is mapped answers EEXIST and leaves it whole",
            requires: [.missingFaults, .transparentHugePages], covers: [.hugePages]
        ) { context in
            let area = try Area(context, pages: 2 * count, alignment: huge.bytes)
            try area.view.advise(.hugePage)
            for page in 0..<count {
                Pattern.write(seed: 1, page: page, at: area.address(page), count: PageSize.base.bytes)
            }
            func hugeBytes() throws -> Int { try MappingAccount(holding: area.range.start)["AnonHugePages"] }
            let mapped = try hugeBytes()
            guard mapped == huge.bytes / 1024 else { try context.skip("the kernel has given no huge page") }
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<4, seed: 8)
            for call in try FillCall.working(on: .anon) {
                for pages in [0..<1, 5..<7, count - 1..<count + 1] {
                    try expectEqual(
                        uffd.raw(call, area.pages(pages), source: source.range.start), .failed(.fileExists),
                        "\(call) of pages \(pages), in a huge page")
                }
                // From missing pages on into nothing else: what is beside the huge page is filled.
                try uffd.raw(call, area.page(count + 1), source: source.range.start).expectDone(PageSize.base.bytes)
                try area.zapView(area.page(count + 1))
            }
            try expectEqual(hugeBytes(), mapped, "AnonHugePages of the view in smaps, KiB")
            for page in 0..<count { try area.expectView(page, seed: 1) }
            try area.expectUnmapped(count..<count + 1)
        },
        SelftestCase(
            "fill-in-huge-mapping", on: [.anon],
            "in memory that may have huge pages each missing page is a fault of its own, and is filled alone",
            requires: [.missingFaults, .transparentHugePages], covers: [.hugePages]
        ) { context in
            let area = try Area(context, pages: 3 * count, alignment: huge.bytes)
            try area.view.advise(.hugePage)
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<1, seed: 8)
            // In one huge page's place by COPY, in the next by ZEROPAGE, in the last by COPY for a write.
            let first: [(page: Int, call: FillCall, isWrite: Bool)] = [
                (5, .copy, false), (count + 7, .zeropage, false), (2 * count + 9, .copy, true), (6, .copy, true),
            ]
            for (page, call, isWrite) in first {
                let address = area.address(page)
                let touch = try isWrite ? Touch.write(address + 8, 0xEE) : Touch.read(address + 8)
                try uffd.expectFault(at: address, isWrite ? .write : [])
                try area.expectUnmapped(page..<page + 1, "its fault is not resolved")
                try uffd.raw(call, area.page(page), source: source.range.start).expectDone(PageSize.base.bytes)
                try touch.finish()
                try area.expectMapped(page..<page + 1)
                try area.expectUnmapped(page + 2..<page + 20, "only one page was filled")
            }
            try expectEqual(
                MappingAccount(holding: area.range.start)["AnonHugePages"], 0, "AnonHugePages of the view, KiB")
            try uffd.expectNoMessage("every page touched was filled")
        },
        SelftestCase(
            "collapse-keeps-holes", on: [.anon, .shmem],
            "making a huge page of filled pages does not fill those that are still missing",
            requires: [.missingFaults, .transparentHugePages, .shmemHugePages], limit: .seconds(30),
            covers: [.holes]
        ) { context in
            let area = try Area(context, pages: count, alignment: huge.bytes)
            try area.view.advise(.hugePage)
            let uffd = try UserfaultFD()
            // The fix and the feature came with the same release.
            if context.memory == .shmem, !uffd.supportedFeatures.contains(.writeProtectUnpopulated) {
                try context.skip(kernel: "collapsing a file's pages fills those that are missing before Linux 6.4")
            }
            try uffd.register(area.range, modes: .missing)
            let source = try area.source(0..<count)
            let hole = count / 2
            let start = source.range.start
            try uffd.raw(.copy, area.pages(0..<hole), source: start).expectDone(hole * PageSize.base.bytes)
            let rest = (hole + 1) * PageSize.base.bytes
            try uffd.raw(.copy, area.pages(hole + 1..<count), source: start + UInt(rest))
                .expectDone(area.range.count - rest)

            let answer = RawMemory.advise(area.range, .collapse)
            context.record("MADV_COLLAPSE with a page missing: \(answer == 0 ? "0" : "\(Errno(rawValue: -answer))")")
            try expect(answer < 0, "MADV_COLLAPSE refuses what would fill a missing page", seen: "0")
            try area.expectUnmapped(hole..<hole + 1, "nobody filled it")
            let touch = try Touch.read(area.address(hole))
            try uffd.expectFault(at: area.address(hole), [])
            let missing = start + UInt(hole * PageSize.base.bytes)
            try uffd.raw(.copy, area.page(hole), source: missing).expectDone(PageSize.base.bytes)
            try touch.finish(with: Pattern.byte(page: hole))
            for page in 0..<count { try area.expectView(page) }
            try uffd.expectNoMessage("one page was missing")
        },
    ]

    private static let huge = PageSize.transparentHuge
    private static let count = huge.bytes / PageSize.base.bytes
}
