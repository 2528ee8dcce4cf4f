import SystemPackage
import UserfaultFD

/// UFFDIO_CONTINUE: what it maps, and that it changes nothing where it cannot.
enum ContinueCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "continue-exists", on: .pageCache,
            "CONTINUE of a page that is already mapped answers EEXIST and changes nothing",
            requires: [.minorFaults], covers: [.continueExists, .failedContinue]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd)
            let blocks = try area.blocks()
            try expectEqual(
                uffd.raw(.continue, area.pages(1..<3)), .done(2 * area.pageSize.bytes), "the first CONTINUE")
            try expectEqual(area.blocks(), blocks, "st_blocks after CONTINUE")

            let before = try (1..<3).map { try PageState(area, page: $0) }
            for pages in [1..<2, 1..<2, 1..<3, 2..<3, 2..<4, 1..<4] {
                try expectEqual(
                    uffd.raw(.continue, area.pages(pages)), .failed(.fileExists), "CONTINUE of pages \(pages)")
                for page in 1..<3 {
                    try PageState(area, page: page).expectUnchanged(since: before[page - 1], by: "the refused CONTINUE")
                }
            }
            for page in 0..<4 { try area.expectFile(page) }
            try area.expectUnmapped(0..<1, "CONTINUE was not asked for it")
            try area.expectUnmapped(3..<4, "CONTINUE stopped before it")
            try uffd.expectNoMessage()

            // Nothing is broken: what was left over can be continued, and the file outlives the view.
            try expectEqual(uffd.raw(.continue, area.page(0)), .done(area.pageSize.bytes), "CONTINUE of page 0")
            try expectEqual(uffd.raw(.continue, area.page(3)), .done(area.pageSize.bytes), "CONTINUE of page 3")
            for page in 0..<4 { try area.expectView(page) }
            try AddressSpace.unmap(area.range)
            for page in 0..<4 {
                try area.expectFile(page)
                try area.expectStored(page)
            }
            try expectEqual(area.blocks(), blocks, "st_blocks after the view is gone")
        },
        SelftestCase(
            "continue-exists-quota", on: [.tmpfs, .tmpfsPrivate],
            "neither CONTINUE nor a CONTINUE refused with EEXIST takes a block of the file system",
            requires: [.minorFaults, .privateMounts], covers: [.continueExists, .failedContinue]
        ) { context in
            let uffd = try UserfaultFD()
            let directory = try context.mountPrivateTmpfs(options: "size=\(16 * PageSize.base.bytes)")
            let area = try prepared(context, uffd, directory: directory)
            let free = try area.fileSystem()!.freeBlocks
            for _ in 0..<32 {
                try expectEqual(uffd.raw(.continue, area.range), .done(area.range.count), "CONTINUE")
                let before = try PageState(area, page: 1)
                for _ in 0..<4 {
                    try expectEqual(uffd.raw(.continue, area.pages(1..<4)), .failed(.fileExists), "CONTINUE repeated")
                }
                try PageState(area, page: 1).expectUnchanged(since: before, by: "the refused CONTINUE")
                try area.zapView()
            }
            try expectEqual(area.fileSystem()!.freeBlocks, free, "free blocks of the file system")
            // The other half is still there to be filled.
            let rest = try Memfd(fileIn: directory, count: Int(free) * PageSize.base.bytes)
            try rest.allocate(at: 0, count: Int(free) * PageSize.base.bytes)
            try expectEqual(area.fileSystem()!.freeBlocks, 0, "free blocks of the full file system")
            // And a full file system does not stop CONTINUE, which needs no block.
            try expectEqual(uffd.raw(.continue, area.range), .done(area.range.count), "CONTINUE on a full file system")
            for page in 0..<4 { try area.expectView(page) }
        },
        SelftestCase(
            "continue-hole", on: .pageCache,
            "CONTINUE where the file has no page answers EFAULT, allocates nothing and wakes nobody",
            requires: [.minorFaults, .missingFaults], covers: [.continueErrors, .failedContinue]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd, modes: [.minor, .missing])
            try area.punchHole(1..<3)
            let blocks = try area.blocks()
            let touch = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), [])
            try touch.thread.waitAsleep()

            for pages in [1..<2, 2..<3, 1..<3, 1..<4] {
                try expectEqual(
                    uffd.raw(.continue, area.pages(pages)), .failed(.badAddress), "CONTINUE of pages \(pages)")
            }
            try expectEqual(area.blocks(), blocks, "st_blocks after the refused CONTINUE")
            try area.expectUnmapped(0..<4, "CONTINUE was refused")
            try touch.thread.expectStillAsleep("a refused CONTINUE wakes nobody")
            try uffd.expectWaiters(pending: 0, total: 1)
            try area.expectStoredZeros(1)
            try expectEqual(area.blocks(), blocks, "st_blocks after reading the hole")

            try area.fillFile(2, seed: 9)
            try expectEqual(
                uffd.raw(.continue, area.page(2)), .done(area.pageSize.bytes), "CONTINUE once the page is there")
            try touch.finish()
            try area.expectView(2, seed: 9)
            try area.expectUnmapped(1..<2, "its hole was never filled")
        },
        SelftestCase(
            "continue-past-eof", on: .pageCache,
            "CONTINUE past the end of the file is refused, and the page that holds the end is within it",
            requires: [.minorFaults], covers: [.continueErrors]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd)
            let half = area.pageSize.bytes / 2
            // hugetlbfs files end at whole pages.
            let end = area.memory.isHugetlb ? 2 * area.pageSize.bytes : area.pageSize.bytes + half
            try area.truncate(toViewBytes: end)
            let blocks = try area.blocks()

            let answer = uffd.raw(.continue, area.page(2))
            let lawful: [RawAnswer] = area.memory.isHugetlb ? [] : [.failed(.invalidArgument)]
            try expectOne(of: lawful + [.failed(.badAddress)], answer, "CONTINUE past the end of the file")
            context.record("CONTINUE past the end of the file answers \(Errno(rawValue: answer.errno))")
            try expectEqual(uffd.raw(.continue, area.pages(2..<4)), answer, "CONTINUE of two pages past the end")
            try area.expectUnmapped(0..<4, "CONTINUE was refused")
            try expectEqual(area.blocks(), blocks, "st_blocks after the refused CONTINUE")
            let signal = Touch.load(area.address(2))
            guard case .signal = signal else {
                throw CaseFailure(expected: "SIGBUS past the end of the file", seen: "\(signal)")
            }
            try uffd.expectNoMessage("past the end of the file there is no fault to resolve")

            try expectEqual(uffd.raw(.continue, area.range), .partial(2 * area.pageSize.bytes), "CONTINUE over the end")
            try area.expectMapped(0..<2, isFile: true)
            try area.expectUnmapped(2..<4, "it lies past the end of the file")
            try area.expectView(0)
            if !area.memory.isHugetlb {
                try Pattern.expect(seed: 0, page: 1, at: area.address(1), count: half, "the part within the file")
                try Pattern.expectZero(
                    at: area.address(1) + UInt(half), count: half, "the part past the end of the file")
            }
            // A longer file has a hole there, not the old page.
            try area.truncate(toViewBytes: area.range.count)
            try expectEqual(uffd.raw(.continue, area.page(2)), .failed(.badAddress), "CONTINUE of the new hole")
        },
        SelftestCase(
            "continue-partial", on: .pageCache,
            "CONTINUE that meets a hole on its way says how far it came, and wakes the waiters of that part alone",
            requires: [.minorFaults, .missingFaults], covers: [.continueErrors, .fillProgress]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd, modes: [.minor, .missing])
            try area.punchHole(2..<3)
            var touches: [Touch] = []
            for page in 0..<4 {
                touches.append(try Touch.read(area.address(page)))
                try uffd.expectFault(at: area.address(page), page == 2 ? [] : .minor)
                try touches[page].thread.waitAsleep()
            }

            let done = RawAnswer.partial(2 * area.pageSize.bytes)
            try expectEqual(uffd.raw(.continue, area.range), done, "CONTINUE up to the hole")
            try touches[0].finish()
            try touches[1].finish()
            try uffd.expectWaiters(total: 2, "after CONTINUE of two pages of four")
            try touches[2].thread.expectStillAsleep("CONTINUE did not come so far")
            try touches[3].thread.expectStillAsleep("CONTINUE did not come so far")
            for page in 0..<2 { try area.expectView(page) }
            try area.expectUnmapped(2..<4, "CONTINUE stopped before it")
            try expectEqual(
                uffd.raw(.continue, area.pages(2..<4)), .failed(.badAddress), "CONTINUE from the hole on")

            try area.fillFile(2)
            try expectEqual(
                uffd.raw(.continue, area.pages(2..<4)), .done(2 * area.pageSize.bytes), "CONTINUE of the rest")
            for page in 2..<4 {
                try touches[page].finish()
                try area.expectView(page)
            }
            try uffd.expectNoMessage("every fault was resolved")
        },
        SelftestCase(
            "continue-partial-exists", on: .pageCache,
            "CONTINUE that meets a mapped page on its way says how far it came and leaves that page alone",
            requires: [.minorFaults], covers: [.continueExists, .continueErrors, .fillProgress]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd)
            try expectEqual(uffd.raw(.continue, area.page(2)), .done(area.pageSize.bytes), "CONTINUE of page 2")
            let touch = try Touch.read(area.address(3))
            try uffd.expectFault(at: area.address(3), .minor)
            try touch.thread.waitAsleep()

            let before = try PageState(area, page: 2)
            try expectEqual(uffd.raw(.continue, area.range), .partial(2 * area.pageSize.bytes), "CONTINUE up to page 2")
            try PageState(area, page: 2).expectUnchanged(since: before, by: "CONTINUE that stops at it")
            try expectEqual(uffd.raw(.continue, area.pages(2..<4)), .failed(.fileExists), "CONTINUE from page 2 on")
            try PageState(area, page: 2).expectUnchanged(since: before, by: "CONTINUE that starts at it")
            try area.expectUnmapped(3..<4, "CONTINUE did not come so far")
            try touch.thread.expectStillAsleep("CONTINUE did not come so far")
            try expectEqual(uffd.raw(.continue, area.page(3)), .done(area.pageSize.bytes), "CONTINUE of page 3")
            try touch.finish()
            for page in 0..<4 {
                try area.expectView(page)
                try area.expectStored(page)
            }
        },
        SelftestCase(
            "continue-cow", on: .pageCache.filter(\.isPrivate),
            "after CONTINUE on a private mapping the first write makes a copy, and the file keeps its page",
            requires: [.minorFaults], covers: [.continueCopyOnWrite, .privateContinue, .privateStores]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd)
            try uffd.continue(area.range)
            try area.expectMapped(0..<4, isFile: true)
            let blocks = try area.blocks()

            // Until the first write the view is the file's page, not a copy of it.
            try area.fillFile(1, seed: 5)
            try area.expectView(1, seed: 5, "a store through the alias, in the view")
            let shared = try PagemapEntry(of: area.address(1))

            try expectEqual(Touch.store(area.address(1), 0xEE), .byte(0xEE), "a write to the view")
            try uffd.expectNoMessage("copy-on-write is no userfault")
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written, in the view")
            try area.expectFile(1, seed: 5)
            try area.expectStored(1, seed: 5)
            try expectEqual(area.blocks(), blocks, "st_blocks after the copy")
            let copied = try PagemapEntry(of: area.address(1))
            try expect(
                copied.isPresent && !copied.isFile && copied.isExclusive, "the view has its own page", seen: "\(copied)"
            )
            try expect(
                shared.frame == 0 || shared.frame != copied.frame, "the copy lies in another frame", seen: "\(copied)")
            try area.expectMapped(0..<1, isFile: true)
            try area.expectMapped(2..<4, isFile: true)
            for page in [0, 2, 3] { try area.expectView(page) }

            try area.fillFile(1, seed: 6)
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the copy, after another store through the alias")

            // Without the copy the file's page comes back, by another minor fault.
            try area.zapView(area.page(1))
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .minor)
            try uffd.continue(area.page(1))
            try touch.finish()
            try area.expectView(1, seed: 6, "the file's page again")
        },
        SelftestCase(
            "continue-shared", on: .pageCache.filter { !$0.isPrivate },
            "after CONTINUE on a shared mapping both mappings are the same page, writable without another fault",
            requires: [.minorFaults], covers: [.continueResolves]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try prepared(context, uffd)
            try uffd.continue(area.pages(1..<3))
            try area.expectMapped(1..<3, isFile: true)
            for page in 1..<3 {
                try expectEqual(
                    PagemapEntry(of: area.address(page)).frame, PagemapEntry(of: area.aliasAddress(page)).frame,
                    "page frame of the view and of the alias")
            }
            try expectEqual(Touch.store(area.address(1), 0xEE), .byte(0xEE), "a write to the view")
            try uffd.expectNoMessage("the page is mapped writable")
            try expectEqual(Touch.load(area.aliasAddress(1)), .byte(0xEE), "the byte written, in the alias")
            try expectEqual(area.readFile(1)[0], 0xEE, "the byte written, in the file")
            try area.fillFile(2, seed: 4)
            try area.expectView(2, seed: 4, "a store through the alias, in the view")
            try area.expectUnmapped(0..<1)
            try area.expectUnmapped(3..<4)
        },
    ]

    /// An area whose every page the file has, registered for minor faults, with holes in the file before it.
    private static func prepared(
        _ context: CaseContext, _ uffd: borrowing UserfaultFD, modes: UserfaultFD.RegisterModes = .minor,
        directory: String? = nil
    ) throws -> Area {
        let area = try Area(context, offset: 3, directory: directory)
        try uffd.register(area.range, modes: modes)
        try area.fillFile()
        return area
    }
}
