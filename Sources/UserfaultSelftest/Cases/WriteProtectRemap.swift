import UserfaultFD

/// mremap without EVENT_REMAP: the moved mapping is plain memory, without registration and without protection.
///
/// What upstream's uffd-wp-mremap checks, and its two halves by name: in memory, swapped out; by page, by huge page.
enum WriteProtectRemapCases: CaseTheme {
    // Kernels before 6.13, and before 6.12.11 and 6.1.191, leave the protection in the page tables: CVE-2025-21696.
    private static let requires: [Requirement] = [.writeProtectFaults, .pagemapProtection]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-mremap", on: .all,
            "mremap without EVENT_REMAP strips registration and write-protection from the memory that it moves",
            requires: requires, covers: [.remapEvent]
        ) { try remap($0, try Area($0), swapped: false) },
        SelftestCase(
            "wp-mremap-swapped", on: .smallPages,
            "mremap without EVENT_REMAP strips the write-protection of pages that are swapped out",
            requires: requires + [.swap], covers: [.remapEvent]
        ) { try remap($0, try Area($0), swapped: true) },
        SelftestCase(
            "wp-mremap-huge", on: [.anon],
            "mremap without EVENT_REMAP strips the write-protection of a transparent huge page",
            requires: requires + [.transparentHugePages], covers: [.remapEvent]
        ) { try remap($0, try .transparentHuge($0, count: 1), swapped: false) },
        SelftestCase(
            "wp-mremap-huge-swapped", on: [.anon],
            "mremap without EVENT_REMAP strips the write-protection of a transparent huge page that is swapped out",
            requires: requires + [.transparentHugePages, .swap], covers: [.remapEvent]
        ) { try remap($0, try .transparentHuge($0, count: 1), swapped: true) },
        SelftestCase(
            "wp-mremap-tables", on: [.anon, .shmem, .shmemPrivate],
            "mremap without EVENT_REMAP strips the write-protection where it moves whole page tables",
            requires: requires + [.features(.writeProtectUnpopulated)], covers: [.remapEvent]
        ) { context in
            let pages = Area.hugePageCount
            let area = try Area(context, pages: 2 * pages, alignment: Area.hugePageBytes)
            let target = try Area(context, pages: 2 * pages, alignment: Area.hugePageBytes)
            let uffd = try UserfaultFD(features: .writeProtectUnpopulated)
            for page in [0, 7, pages + 1] { _ = Touch.store(area.address(page), 1) }
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected(Array(0..<2 * pages), "before mremap")
            _ = try Remapping.move(area.range, to: target.range)
            try target.expectProtected([], "after mremap")
            for page in [0, 3, 7, pages + 1] {
                try expectEqual(Touch.store(target.address(page), 2), .byte(2), "a write after mremap")
            }
            try uffd.expectNoMessage("the moved mapping is not registered")
        },
        SelftestCase(
            "wp-mremap-unpopulated", on: .all,
            "mremap without EVENT_REMAP strips the markers of pages that are not there",
            requires: requires + [.features(.writeProtectUnpopulated)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let target = try Area(context)
            let uffd = try area.registered(.writeProtect, features: .writeProtectUnpopulated)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected([0, 1, 2, 3], "while empty")
            _ = try Remapping.move(area.range, to: target.range)
            try target.expectProtected([], "after mremap")
            for page in 0..<4 { try expectEqual(Touch.store(target.address(page), 1), .byte(1), "a write") }
            try uffd.expectNoMessage("the moved mapping is not registered")
        },
    ]

    private static func remap(_ context: CaseContext, _ area: Area, swapped: Bool) throws {
        let target = try Area(context, pages: area.pageCount, alignment: Area.hugePageBytes)
        let all = Array(0..<area.pageCount)
        let uffd = try UserfaultFD()
        area.fillView()
        try uffd.register(area.range, modes: .writeProtect)
        try uffd.writeProtect(area.range, .protect)
        if swapped { try area.swapOut(0..<area.pageCount) }
        try area.expectProtected(all, "before mremap")
        // Both lie at multiples of a huge page, so that page tables may move as a whole.
        try expectEqual(try Remapping.move(area.range, to: target.range), target.range.start, "answer of mremap")
        try target.expectProtected([], "after mremap")
        try target.expectModes(0, [], "after mremap")
        for page in all {
            try target.expectView(page, "contents after mremap")
            try expectEqual(Touch.store(target.address(page), 1), .byte(1), "a write after mremap")
        }
        try uffd.expectNoMessage("the moved mapping is not registered")

        // Nothing of the old registration is in the way of a new one.
        try uffd.register(target.range, modes: .writeProtect)
        try target.expectProtected([], "after registering anew")
        try uffd.writeProtect(target.page(1), .protect)
        let touch = try Touch.write(target.address(1), 2)
        try uffd.expectFault(at: target.address(1), [.write, .writeProtect])
        try uffd.writeProtect(target.page(1), .unprotect)
        try touch.finish(with: 2)
    }
}
