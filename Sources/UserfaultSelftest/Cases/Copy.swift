import SystemPackage
import UserfaultFD

/// UFFDIO_COPY: which page it makes, and where.
enum CopyCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "copy-exists", on: .all,
            "COPY to a page that is already there answers EEXIST and changes nothing, in the file or in the view",
            requires: [.missingFaults], covers: [.failedContinue]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            let first = try area.source(1..<3)
            let second = try area.source(0..<4, seed: 8)
            try expectEqual(
                uffd.raw(.copy, area.pages(1..<3), source: first.range.start), .done(2 * area.pageSize.bytes), "COPY")

            let before = try (1..<3).map { try PageState(area, page: $0, aliasIsMapped: !area.memory.isPrivate) }
            for pages in [1..<2, 1..<2, 1..<3, 2..<3, 2..<4, 1..<4] {
                try expectEqual(
                    uffd.raw(.copy, area.pages(pages), source: second.range.start), .failed(.fileExists),
                    "COPY to pages \(pages)")
                for page in 1..<3 {
                    try PageState(area, page: page, aliasIsMapped: !area.memory.isPrivate)
                        .expectUnchanged(since: before[page - 1], by: "the refused COPY")
                }
            }
            try area.expectUnmapped(0..<1, "COPY was not asked for it")
            try area.expectUnmapped(3..<4, "COPY stopped before it")

            // A page that only the file has is in the way of a shared mapping too.
            if area.file != nil && !area.memory.isPrivate {
                try area.fillFile(3)
                let blocks = try area.blocks()
                let answer = uffd.raw(.copy, area.page(3), source: second.range.start)
                try expectEqual(answer, .failed(.fileExists), "COPY to a page that only the file has")
                try area.expectUnmapped(3..<4, "COPY was refused")
                try area.expectFile(3)
                try area.expectStored(3)
                try expectEqual(area.blocks(), blocks, "st_blocks after the refused COPY")
            }
            try uffd.expectNoMessage()
            try expectEqual(
                uffd.raw(.copy, area.page(0), source: second.range.start), .done(area.pageSize.bytes), "COPY to page 0")
            try area.expectView(0, seed: 8)
            for page in 1..<3 { try area.expectView(page) }
        },
        SelftestCase(
            "copy-private", on: .pageCache.filter(\.isPrivate),
            "COPY on a private mapping makes a page of the view alone, also where the file has one",
            requires: [.missingFaults], covers: [.privateCopy]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            try area.fillFile(1)
            try area.fillFile(2)
            let blocks = try area.blocks()
            let source = try area.source(0..<4, seed: 8)

            try expectEqual(uffd.raw(.copy, area.range, source: source.range.start), .done(area.range.count), "COPY")
            for page in 0..<4 { try area.expectView(page, seed: 8) }
            try area.expectMapped(0..<4, isFile: false)
            for page in 1..<3 {
                try area.expectFile(page)
                try area.expectStored(page)
            }
            for page in [0, 3] { try area.expectStoredZeros(page) }
            try expectEqual(area.blocks(), blocks, "st_blocks after COPY")
            if !area.memory.isHugetlb {
                let account = try MappingAccount(holding: area.range.start)
                try expectEqual(account["Anonymous"], area.range.count / 1024, "Anonymous of the view in smaps, KiB")
                try expectEqual(account["Private_Dirty"], area.range.count / 1024, "Private_Dirty of the view, KiB")
            }

            // The file's stores are not seen any more, and the view's never get there.
            try area.fillFile(1, seed: 2)
            try area.expectView(1, seed: 8)
            try expectEqual(Touch.store(area.address(2), 0xEE), .byte(0xEE), "a write to the view")
            try area.expectFile(2)
            try uffd.expectNoMessage("every page is there")
        },
    ]
}
