import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Behaviours that kernels of the last years broke, each in a way that needs a scene of its own.
///
/// `Tests/KernelMatrix/regressions.json` says which kernels lie before and after each fix.
enum KernelBugCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-remap-beside", on: [.anon],
            "memory that mremap puts beside a registered mapping leaves that one registered, and is not itself",
            requires: [.missingFaults], covers: [.remapEvent]
        ) { context in
            let page = PageSize.base.bytes
            // The mapping that stays in front of, and behind, the one that comes; untouched, so that they may merge.
            for (stays, comes) in [(0, 2), (2, 0)] {
                let uffd = try UserfaultFD()
                let place = try reserve(6 * page).part(at: page, count: 4 * page)
                func map(_ at: AddressRange) throws -> AddressRange {
                    try RawMemory.mapAnonymous(at: at.start, count: 2 * page, flags: MAP_PRIVATE | MAP_FIXED)
                }
                let neighbour = try map(place.part(at: stays * page, count: 2 * page))
                let moved = try map(reserve(4 * page).part(at: page, count: 2 * page))
                try uffd.register(neighbour, modes: .missing)
                try uffd.register(moved, modes: .missing)
                let target = place.part(at: comes * page, count: 2 * page)
                _ = try Remapping.move(moved, to: target)
                let when = "after mremap \(comes > stays ? "behind" : "in front of") it"
                try expectEqual(
                    MappingAccount(holding: neighbour.start).userfaultFlags, ["um"], "flags of the neighbour \(when)")
                try expectEqual(MappingAccount(holding: target.start).userfaultFlags, [], "flags of what has moved")
                try expectEqual(Touch.load(target.start), .byte(0), "a read of what has moved")
                let touch = try Touch.read(neighbour.start)
                try uffd.expectFault(at: neighbour.start, [])
                try uffd.zeropage(neighbour)
                try touch.finish(with: 0)
            }
        },
        SelftestCase(
            "rwp-dropped-write", on: .allHugetlb,
            "a write to a huge page that was protected and dropped goes through",
            requires: [.missingFaults, .features(.readWriteProtect)], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            try area.zapView(area.pages(1..<3))
            for page in 1..<3 {
                try Touch.write(area.address(page), 7).finish(with: 7, "the write to page \(page) goes on")
            }
            try uffd.expectNoMessage("nothing is protected there")
        },
        SelftestCase(
            "wp-replaced", on: .all,
            "REGISTER that takes the place of a write protection is refused, or the pages that were protected can be written",
            requires: [.missingFaults, .writeProtectFaults], covers: [.registerAgain]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.range, .protect)
            let answer = uffd.rawRegister(area.range, .missing)
            guard answer.errno == 0 else {
                try expectEqual(answer, .refused(.resourceBusy), "UFFDIO_REGISTER for missing faults alone")
                return
            }
            for page in 0..<area.pageCount {
                try Touch.write(area.address(page), 7).finish(with: 7, "the write to page \(page) goes on")
            }
            try uffd.expectNoMessage("nothing is protected any more")
        },
        SelftestCase(
            "copy-huge-race", on: [.hugetlb],
            "COPY and an access through another mapping agree who makes a huge page, and reserve no page for nobody",
            requires: [.missingFaults, .privateHugetlbfs, .hugePages(32)], limit: .seconds(20), covers: [.exhaustion]
        ) { context in
            let pages = 8
            let directory = try context.mountPrivateHugetlbfs(pages: 2 * pages)
            // A few rounds at least, and no more than fit into some seconds: clearing huge pages takes long on slow hosts.
            let end = ContinuousClock.now + .seconds(4)
            for round in 0..<60 where round < 4 || ContinuousClock.now < end {
                let area = try Area(context, pages: pages, directory: directory, reserves: true)
                let uffd = try UserfaultFD()
                try uffd.register(area.range, modes: .missing)
                try expectEqual(area.fileSystem()!.freeBlocks, UInt64(pages), "pages that are not reserved")
                let source = try area.source(0..<1)
                let gate = Touch.Gate()
                let toucher = try BackgroundCall {
                    gate.pass()
                    return try (0..<pages).map { Touch.store(try area.aliasAddress($0), 3) }
                }
                gate.open()
                for page in 0..<pages {
                    try expectOne(
                        of: [.done(area.pageSize.bytes), .failed(.fileExists)],
                        uffd.raw(.copy, area.page(page), source: source.range.start),
                        "COPY of a page that another thread touches, round \(round)")
                }
                for outcome in try toucher.finish() {
                    try expectEqual(outcome, .byte(3), "an access to a page that COPY fills, round \(round)")
                }
                for start in [area.range.start, try area.aliasAddress(0)] {
                    try AddressSpace.unmap(AddressRange(start: start, count: area.range.count))
                }
                try area.file!.resize(to: 0)
                try expectEqual(
                    FileSystem(of: area.file!).freeBlocks, UInt64(2 * pages), "free huge pages after round \(round)")
            }
        },
        SelftestCase(
            "scan-huge-part", on: [.hugetlbPrivate],
            "PAGEMAP_SCAN that protects, and ends within a huge page that was never touched, protects nothing behind its end",
            requires: [.writeProtectFaults, .features(.writeProtectAsync), .addressSpace(2304)],
            covers: [.asyncProtection]
        ) { context in
            // So far from everything else that no page table is there.
            let slot = Area.hugePageBytes * (PageSize.base.bytes / MemoryLayout<UInt64>.size)
            let few = 4 * PageSize.base.bytes
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            let scan = try PagemapScan()
            for (limit, what) in [(nil, "its range"), (4, "its limit of pages")] {
                let area = try Area(context, alignment: slot)
                try uffd.register(area.range, modes: .writeProtect)
                let range = limit == nil ? area.range.part(at: 0, count: few) : area.page(0)
                let query = PagemapScan.Query(reported: .written, writeProtectsMatches: true, pageLimit: limit)
                _ = try scan.scan(range, for: query)
                let beyond = try PagemapEntry(of: area.address(0) + UInt(few))
                try expect(!beyond.isProtected, "nothing is protected behind \(what)", seen: "\(beyond)")
            }
        },
        SelftestCase(
            "wp-split-zeros", on: [.anon],
            "pages of a huge page full of zeros stay protected when reclaim splits it and maps the zero page instead",
            requires: [
                .writeProtectFaults, .pagemapProtection, .transparentHugePages, .memoryGroup,
                .setting(SystemSetting(path: "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none"), "0"),
            ], covers: [.protectionSurvives]
        ) { context in
            try context.joinMemoryGroup(limit: 256 << 20)
            let count = 4
            let area = try Area(context, pages: count * Area.hugePageCount, alignment: Area.hugePageBytes)
            try area.view.advise(.hugePage)
            // A write makes a huge page; all of it is zero.
            for page in 0..<count { Touch.store(area.address(page * Area.hugePageCount), 0) }
            guard try area.hugeBytes() == area.range.count else {
                try context.skip(thisTime: "no huge page was to be had")
            }
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            for _ in 0..<20 where try area.hugeBytes() == area.range.count {
                try context.reclaimMemoryGroup(1 << 20)
            }
            guard try area.hugeBytes() < area.range.count else {
                try context.skip(thisTime: "reclaim split no huge page")
            }
            let entries = try PagemapEntry.entries(of: area.range)
            let zeros = entries.filter { !$0.isExclusive && $0.isPresent }.count
            context.record("\(zeros) of \(entries.count) pages are the zero page")
            let lost = entries.filter { !$0.isProtected }.count
            try expectEqual(lost, 0, "pages of \(entries.count) that lost their protection")
        },
        SelftestCase(
            "copy-migrating", on: [.anon],
            "COPY and ZEROPAGE onto a transparent huge page that moves to another node answer EEXIST, and harm nothing",
            requires: [.missingFaults, .transparentHugePages, .file("/sys/devices/system/node/node1")],
            limit: .seconds(20), covers: [.hugePages]
        ) { context in
            let area = try Area.transparentHuge(context, count: 1)
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .missing)
            let source = try area.source(0..<4, seed: 9)
            try area.checkMoves(of: "huge pages", context)
            let mover = try BackgroundCall {
                (0..<400).filter { css_move_page(area.address(0), CInt($0 % 2)) == 0 }.count
            }
            var fills = 0
            while !mover.isFinished || fills == 0 {
                for call in [FillCall.copy, .zeropage] {
                    let answer = uffd.raw(call, area.pages(8..<12), source: source.range.start)
                    try expectEqual(answer, .failed(.fileExists), "\(call) onto a huge page that moves")
                    fills += 1
                }
            }
            let moves = try mover.finish()
            context.record("\(moves) moves and \(fills) fills")
            guard moves > 0 else { try context.skip(thisTime: "no huge page was moved") }
            try expectPatterns(0..<area.pageCount, at: area.range.start, "the huge page that has moved")
        },
    ]
}
