import SystemPackage
import UserfaultFD

/// UFFDIO_ZEROPAGE: the page that is not there, and the one that is made.
enum ZeropageCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "zeropage", on: .all,
            "ZEROPAGE fills with zeros once, answers EEXIST after that, and EINVAL on huge pages",
            requires: [.missingFaults], covers: [.upstream, .zeropage]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try UserfaultFD()
            let ioctls = try uffd.register(area.page(1), modes: .missing)
            try expectEqual(
                ioctls.contains(.zeropage), !context.memory.isHugetlb, "ZEROPAGE in the mask of registration")
            guard ioctls.contains(.zeropage) else {
                try expectEqual(uffd.raw(.zeropage, area.page(1)), .failed(.invalidArgument), "ZEROPAGE of a huge page")
                return try area.expectUnmapped(0..<4)
            }
            try expectEqual(uffd.raw(.zeropage, area.page(1)), .done(area.pageSize.bytes), "ZEROPAGE")
            try area.expectZeroView(1)
            try expectEqual(uffd.raw(.zeropage, area.page(1)), .failed(.fileExists), "ZEROPAGE repeated")
            if !context.memory.isPrivate {
                let alias = AddressRange(start: try area.aliasAddress(1), count: area.pageSize.bytes)
                try uffd.register(alias, modes: .missing)
                try expectEqual(uffd.raw(.zeropage, alias), .failed(.fileExists), "ZEROPAGE through the alias")
                try uffd.unregister(alias)
            }
            try area.expectZeroView(1)
            try uffd.unregister(area.page(1))
            try area.expectUnmapped(2..<4)
        },
        SelftestCase(
            "zeropage-uses-no-memory", on: .smallPages.filter(\.isPrivate),
            "ZEROPAGE on private memory maps the one page of zeros, and the first write makes a page",
            requires: [.missingFaults], covers: [.zeropage, .residentMemory, .continueResident]
        ) { context in
            let area = try Area(context, pages: 1024, offset: 3)
            let uffd = try area.registered(.missing)
            let before = Accounting()
            let blocks = try area.blocks()
            try expectEqual(uffd.raw(.zeropage, area.range), .done(area.range.count), "ZEROPAGE")
            let filled = Accounting()
            try expectEqual(try MappingAccount(holding: area.range.start)["Rss"], 0, "Rss of the view in smaps, KiB")
            // The counters are approximate; 4 MiB of pages would show.
            let slack = area.range.count / 1024 / 2
            for (name, count) in [
                ("RssAnon", filled.residentAnonymous - before.residentAnonymous),
                ("RssShmem", filled.residentShmem - before.residentShmem),
                ("RssFile", filled.residentFile - before.residentFile),
            ] {
                try expect(abs(count) < slack, "\(name) does not grow by what ZEROPAGE maps", seen: "\(count) KiB more")
            }
            try expectEqual(area.blocks(), blocks, "st_blocks after ZEROPAGE")

            try expectEqual(Touch.store(area.address(7), 0xEE), .byte(0xEE), "a write to page 7")
            try uffd.expectNoMessage("the write makes a copy of the page of zeros")
            let account = try MappingAccount(holding: area.range.start)
            try expectEqual(account["Rss"], PageSize.base.bytes / 1024, "Rss of the view in smaps after one write, KiB")
            try expectEqual(account["Anonymous"], PageSize.base.bytes / 1024, "Anonymous of the view in smaps, KiB")
            try expectEqual(Touch.load(area.address(7)), .byte(0xEE), "the byte written")
            try expectEqual(Touch.load(area.address(7) + 1), .byte(0), "the byte beside it")
            for page in [0, 6, 8, 1023] { try area.expectZeroView(page) }
            try expectEqual(area.blocks(), blocks, "st_blocks after the write")
            if area.file != nil { try area.expectStoredZeros(7) }
        },
        SelftestCase(
            "zeropage-zero-frame", on: .smallPages.filter(\.isPrivate),
            "what ZEROPAGE maps on private memory is the kernel's page of zeros",
            requires: [.missingFaults, .pageFrames], covers: [.zeropage]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            try uffd.zeropage(area.pages(1..<3))
            let frames = try (1..<3).map { try PageFrame(of: area.address($0)) }
            try expectEqual(frames[0].number, frames[1].number, "page frame of both pages")
            try expect(frames[0].flags.contains(.zeroPage), "it is the page of zeros", seen: "flags \(frames[0].flags)")
            Touch.store(area.address(1), 1)
            try expect(
                PageFrame(of: area.address(1)).number != frames[0].number, "a written page has a frame of its own")
            try area.expectZeroView(2)
        },
        SelftestCase(
            "zeropage-makes-page", on: .smallPages.filter { !$0.isPrivate },
            "ZEROPAGE on shared memory makes a page of the file, which is what every mapping sees from then on",
            requires: [.missingFaults], covers: [.zeropage]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), .write)
            try expectEqual(uffd.raw(.zeropage, area.pages(1..<3)), .done(2 * area.pageSize.bytes), "ZEROPAGE")
            try touch.finish(with: 0xEE)
            try expectEqual(area.blocks(), 2 * area.pageSize.bytes / 512, "st_blocks after ZEROPAGE of two pages")
            try expectEqual(Touch.load(area.aliasAddress(1)), .byte(0xEE), "the byte written, in the alias")
            try expectEqual(Touch.load(area.aliasAddress(1) + 1), .byte(0), "the byte beside it, in the alias")
            try area.fillFile(2)
            try area.expectView(2)
            for page in 1..<3 {
                try expectEqual(
                    PagemapEntry(of: area.address(page)).frame, PagemapEntry(of: area.aliasAddress(page)).frame,
                    "page frame of the view and of the alias")
            }
            try uffd.expectNoMessage("both pages are there, writable")
            let account = try MappingAccount(holding: area.range.start)
            try expectEqual(account["Rss"], 2 * area.pageSize.bytes / 1024, "Rss of the view in smaps, KiB")
            try expectEqual(account["Anonymous"], 0, "Anonymous of the view in smaps, KiB")
        },
        SelftestCase(
            "zeropage-cached", on: .allShmem,
            "ZEROPAGE where only the file has a page: refused on a shared mapping, a page of zeros on a private one",
            requires: [.missingFaults], covers: [.zeropage]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            try area.fillFile()
            let blocks = try area.blocks()
            if context.memory.isPrivate {
                try expectEqual(uffd.raw(.zeropage, area.pages(1..<3)), .done(2 * area.pageSize.bytes), "ZEROPAGE")
                for page in 1..<3 { try area.expectZeroView(page) }
            } else {
                try expectEqual(uffd.raw(.zeropage, area.pages(1..<3)), .failed(.fileExists), "ZEROPAGE")
                try area.expectUnmapped(0..<4)
            }
            for page in 0..<4 {
                try area.expectFile(page)
                try area.expectStored(page)
            }
            try expectEqual(area.blocks(), blocks, "st_blocks after ZEROPAGE")
        },
    ]
}
