import UserfaultFD

/// Write-protection of transparent huge pages, whole and in part; and the old test of pagemap, by page and by huge page.
enum WriteProtectHugeCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-pagemap", on: [.anon],
            "pagemap shows the protection of a page through fork, swap and unprotecting",
            requires: [.writeProtectFaults, .pagemapProtection, .swap], covers: [.protectionSurvives]
        ) { try pagemap($0, try Area($0, pages: 1)) },
        SelftestCase(
            "wp-pagemap-huge", on: [.anon],
            "pagemap shows the protection of every part of a transparent huge page through fork, swap and unprotecting",
            requires: [.writeProtectFaults, .pagemapProtection, .swap, .transparentHugePages],
            covers: [.protectionSurvives]
        ) { try pagemap($0, try .transparentHuge($0, count: 1)) },
        SelftestCase(
            "wp-huge-whole", on: [.anon],
            "a transparent huge page is protected whole; unprotecting one page of it leaves all others protected",
            requires: [.writeProtectFaults, .transparentHugePages], covers: [.protectionSurvives]
        ) { context in
            let area = try Area.transparentHuge(context, count: 2)
            let uffd = try UserfaultFD()
            let count = area.pageCount
            let last = count - 1
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected(Array(0..<count), "after protecting all")
            try expectEqual(try area.hugeBytes(), area.range.count, "bytes in huge pages, protected whole")
            try uffd.writeProtect(area.page(3), .unprotect)
            try area.expectProtected((0..<count).filter { $0 != 3 }, "after unprotecting one page")
            try expectEqual(try area.hugeBytes(), area.range.count / 2, "bytes in huge pages after splitting one")
            try expectEqual(Touch.store(area.address(3), 1), .byte(1), "a write to that page")
            try uffd.expectNoMessage("the page is not protected")
            for page in [2, 4, last] {
                let touch = try Touch.write(area.address(page) + 9, 0xEE)
                try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                try touch.thread.waitAsleep()
                try touch.thread.expectStillAsleep("page \(page) is protected")
                try uffd.expectNoMessage("one write makes one message")
                try area.expectView(page, "while the write waits")
                try uffd.writeProtect(area.page(page), .unprotect)
                try touch.finish(with: 0xEE)
            }
            let open = [2, 3, 4, last]
            try area.expectProtected((0..<count).filter { !open.contains($0) }, "after four pages")
            for page in 0..<count where !open.contains(page) { try area.expectView(page, "after splitting") }
            try uffd.writeProtect(area.range, .unprotect)
            try area.expectProtected([], "after unprotecting all")
        },
        SelftestCase(
            "wp-huge-mprotect", on: [.anon],
            "the protection of a whole huge page outlasts mprotect",
            requires: [.writeProtectFaults, .transparentHugePages], covers: [.protectionSurvives]
        ) { context in
            let area = try Area.transparentHuge(context, count: 1)
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.range, .protect)
            for protection in [MemoryProtection.read, .readWrite, .none, .readWrite] {
                try area.view.protect(protection)
                try area.expectProtected(Array(0..<area.pageCount), "after mprotect to \(protection)")
            }
            try expectEqual(try area.hugeBytes(), area.range.count, "bytes in huge pages after mprotect")
            let touch = try Touch.write(area.address(9), 0xEE)
            try uffd.expectFault(at: area.address(9), [.write, .writeProtect])
            try uffd.writeProtect(area.range, .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectProtected([], "after unprotecting all")
            try expectEqual(Touch.store(area.address(11), 1), .byte(1), "a write afterwards")
        },
        SelftestCase(
            "wp-collapse-alias", on: [.shmem],
            "making a huge page of a file through another mapping leaves this mapping's protection",
            requires: [.writeProtectFaults, .shmemHugePages, .features(.poison)], covers: [.protectionSurvives, .holes]
        ) { context in
            let area = try Area(context, pages: Area.hugePageCount, alignment: Area.hugePageBytes)
            let uffd = try UserfaultFD()
            area.fillView()
            let aligned = try Mapping(area.file!, placement: .at(try Area.freeHugePage()))
            for page in 0..<area.pageCount { _ = Touch.load(aligned.page(page).start) }
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(3..<6), .protect)
            // One mapped, one not.
            try area.zapView(area.page(4))
            let collapsed = Result { () throws(UserfaultError) in try aligned.advise(.collapse) }
            context.record("MADV_COLLAPSE of the alias: \(collapsed)")
            try area.expectProtected([3, 4, 5], "after MADV_COLLAPSE of the alias")
            for page in [3, 4] {
                let touch = try Touch.write(area.address(page), 0xEE)
                try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                try uffd.writeProtect(area.page(page), .unprotect)
                try touch.finish(with: 0xEE)
            }
            for page in 5..<area.pageCount { try area.expectView(page) }
        },
        SelftestCase(
            "wp-huge-part", on: [.anon],
            "protecting some pages of a transparent huge page protects those and no others",
            requires: [.writeProtectFaults, .transparentHugePages], covers: [.protectionSurvives]
        ) { context in
            let area = try Area.transparentHuge(context, count: 2)
            let uffd = try area.registered(.writeProtect)
            let half = area.pageCount / 2
            // The end of one huge page and the start of the next.
            try uffd.writeProtect(area.pages(half - 2..<half + 1), .protect)
            try area.expectProtected([half - 2, half - 1, half], "across two huge pages")
            for page in [half - 3, half + 1] {
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write beside the range")
            }
            try uffd.expectNoMessage("the neighbours are not protected")
            let touch = try Touch.write(area.address(half), 0xEE)
            try uffd.expectFault(at: area.address(half), [.write, .writeProtect])
            try uffd.writeProtect(area.page(half), .unprotect)
            try touch.finish(with: 0xEE)
            for page in 0..<area.pageCount where ![half - 3, half, half + 1].contains(page) {
                try area.expectView(page)
            }
        },
        SelftestCase(
            "wp-huge-collapse", on: [.anon],
            "MADV_COLLAPSE neither makes a huge page of protected pages nor takes their protection away",
            requires: [.writeProtectFaults, .transparentHugePages, .features(.poison)],
            covers: [.protectionSurvives, .holes]
        ) { context in
            let area = try Area(context, pages: Area.hugePageCount, alignment: Area.hugePageBytes)
            let uffd = try UserfaultFD()
            try area.view.advise(.noHugePage)
            area.fillView()
            try area.view.advise(.hugePage)
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.page(5), .protect)
            let collapsed = Result { () throws(UserfaultError) in try area.view.advise(.collapse) }
            context.record("MADV_COLLAPSE with one protected page: \(collapsed)")
            try area.expectProtected([5], "after MADV_COLLAPSE")
            try expectEqual(try area.hugeBytes(), 0, "bytes in huge pages")
            let touch = try Touch.write(area.address(5), 0xEE)
            try uffd.expectFault(at: area.address(5), [.write, .writeProtect])
            try uffd.writeProtect(area.page(5), .unprotect)
            try touch.finish(with: 0xEE)
            Pattern.write(seed: 0, page: 5, at: area.address(5), count: 8)
            for page in 0..<area.pageCount { try area.expectView(page, "after MADV_COLLAPSE") }
        },
        SelftestCase(
            "wp-huge-file", on: [.shmem, .shmemPrivate],
            "a protected page of a huge page in the page cache is protected alone, also after it is dropped",
            requires: [.writeProtectFaults, .shmemHugePages, .features(.poison)], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, pages: Area.hugePageCount, alignment: Area.hugePageBytes)
            let alias = AddressRange(start: try area.aliasAddress(0), count: area.range.count)
            try area.alias!.advise(.hugePage, alias)
            try area.view.advise(.hugePage)
            try area.fillFile()
            for page in 0..<area.pageCount { try area.expectView(page) }
            context.record("\(try area.hugeBytes()) bytes of the view in huge pages")
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.pages(3..<5), .protect)
            try area.expectProtected([3, 4], "after protecting two pages")
            try expectEqual(Touch.store(area.address(2), 1), .byte(1), "a write beside the range")
            try area.zapView()
            try area.expectProtected([3, 4], "after dropping all")
            for page in 5..<area.pageCount { try area.expectView(page, "read in anew") }
            try area.expectProtected([3, 4], "after reading the neighbours")
            let touch = try Touch.write(area.address(4), 0xEE)
            try uffd.expectFault(at: area.address(4), [.write, .writeProtect])
            try uffd.writeProtect(area.page(4), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectView(3)
            try area.expectProtected([3], "at the end")
            try uffd.expectNoMessage("all is resolved")
        },
    ]

    private static func pagemap(_ context: CaseContext, _ area: Area) throws {
        let uffd = try UserfaultFD()
        area.fillView()
        try uffd.register(area.range, modes: .writeProtect)
        let all = Array(0..<area.pageCount)
        try uffd.writeProtect(area.range, .protect)
        try area.expectProtected(all, "after protecting")
        func expectPlainChild(_ what: String) throws {
            let places = [area.address(0), area.address(area.pageCount - 1)]
            let child = try Child(places.map { .pagemap($0) })
            try child.finish()
            for step in 0..<2 {
                try expect(!child.pagemap(step).isProtected, "the child's page is not protected, \(what)")
            }
        }
        try expectPlainChild("in memory")
        try expect(
            try PagemapEntry.entries(of: area.range).allSatisfy { $0.isExclusive }, "the parent's pages are its alone")
        try area.swapOut(0..<area.pageCount)
        try area.expectProtected(all, "while swapped out")
        try expectPlainChild("swapped out")
        try uffd.writeProtect(area.range, .unprotect)
        try area.expectProtected([], "after unprotecting")
        for page in all { try area.expectView(page, "after swapping") }
        try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write")
        try area.expectProtected([], "after the write")
        try uffd.expectNoMessage("nothing is protected")
    }
}
