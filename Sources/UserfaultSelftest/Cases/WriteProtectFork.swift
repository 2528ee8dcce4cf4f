import UserfaultFD

/// Write-protection and fork: without the fork event a child's memory is plain, with it the child's is protected too.
enum WriteProtectForkCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-fork", on: .all,
            "without EVENT_FORK a child has no write-protection, and the parent keeps its own, evicted or not",
            requires: [.writeProtectFaults, .pagemapProtection], covers: [.upstream]
        ) { try fork($0, reported: false) },
        SelftestCase(
            "wp-fork-with-event", on: .all,
            "with EVENT_FORK a child's pages are write-protected like the parent's, evicted or not",
            requires: [.writeProtectFaults, .pagemapProtection, .features(.eventFork), .root],
            covers: [.upstream, .protectionSurvives]
        ) { try fork($0, reported: true) },
        SelftestCase(
            "wp-fork-pin", on: .all,
            "a fork that copies a pinned page at once drops the child's write-protection without EVENT_FORK",
            requires: [.writeProtectFaults, .pagemapProtection], covers: [.upstream]
        ) { try forkPinned($0, reported: false) },
        SelftestCase(
            "wp-fork-pin-with-event", on: .all,
            "a fork that copies a pinned page at once keeps the child's write-protection with EVENT_FORK",
            requires: [.writeProtectFaults, .pagemapProtection, .features(.eventFork), .root],
            covers: [.upstream]
        ) { try forkPinned($0, reported: true) },
        SelftestCase(
            "wp-fork-swapped", on: [.anon, .shmemPrivate, .tmpfsPrivate],
            "a child's swapped pages are write-protected with EVENT_FORK, and are not without",
            requires: [.writeProtectFaults, .pagemapProtection, .features(.eventFork), .root, .swap],
            covers: [.protectionSurvives]
        ) { context in
            for reported in [false, true] {
                let area = try Area(context)
                let descriptor = Handler.Descriptor(try UserfaultFD(features: reported ? .eventFork : []))
                try descriptor.uffd.register(area.range, modes: .writeProtect)
                area.fillView()
                try descriptor.uffd.writeProtect(area.pages(1..<3), .protect)
                try area.swapOut(0..<4)
                try expectChild(of: area, descriptor, protected: reported, "pages swapped out")
                try area.expectProtected([1, 2], "in the parent")
                try descriptor.uffd.expectNoMessage("nothing was written")
            }
        },
        SelftestCase(
            "wp-fork-huge", on: [.anon],
            "a child's huge page is write-protected with EVENT_FORK, and is not without",
            requires: [.writeProtectFaults, .pagemapProtection, .features(.eventFork), .root, .transparentHugePages],
            covers: [.protectionSurvives]
        ) { context in
            for reported in [false, true] {
                let area = try Area.transparentHuge(context, count: 1)
                let descriptor = Handler.Descriptor(try UserfaultFD(features: reported ? .eventFork : []))
                try descriptor.uffd.register(area.range, modes: .writeProtect)
                try descriptor.uffd.writeProtect(area.range, .protect)
                let places = [0, 9, area.pageCount - 1].map { area.address($0) }
                let steps = places.map { Child.Step.pagemap($0) }
                let child = reported ? try Child.reported(by: descriptor, steps) : try Child(steps)
                try child.finish()
                for step in places.indices {
                    try expectEqual(
                        try child.pagemap(step).isProtected, reported, "protection of the child's huge page")
                }
                try area.expectProtected(Array(0..<area.pageCount), "in the parent")
                try descriptor.uffd.expectNoMessage("nothing was written")
            }
        },
        SelftestCase(
            "wp-fork-markers", on: .all,
            "a child has the protection of pages that are not there with EVENT_FORK, and has it not without",
            requires: [.writeProtectFaults, .features([.eventFork, .writeProtectUnpopulated]), .root],
            covers: [.protectionSurvives]
        ) { context in
            for reported in [false, true] {
                let area = try Area(context)
                let features: UserfaultFD.Features =
                    reported ? [.eventFork, .writeProtectUnpopulated] : .writeProtectUnpopulated
                let descriptor = Handler.Descriptor(try UserfaultFD(features: features))
                // Something mapped, so that there are page tables to copy.
                _ = Touch.store(area.address(0), 1)
                try descriptor.uffd.register(area.range, modes: .writeProtect)
                try descriptor.uffd.writeProtect(area.pages(1..<3), .protect)
                let steps = (0..<4).map { Child.Step.pagemap(area.address($0)) }
                let child = reported ? try Child.reported(by: descriptor, steps) : try Child(steps)
                try child.finish()
                for page in 0..<4 {
                    try expectEqual(
                        try child.pagemap(page).isProtected, reported && (1...2).contains(page),
                        "protection of the child's page \(page)")
                }
                try area.expectProtected([1, 2], "in the parent")
                try descriptor.uffd.expectNoMessage("nothing was written")
            }
        },
        SelftestCase(
            "wp-fork-events", on: .all,
            "with EVENT_FORK a child's write to a protected page is a message on the child's userfaultfd, and each "
                + "process' protection is its own",
            requires: [.writeProtectFaults, .pagemapProtection, .features(.eventFork), .root],
            covers: [.protectionSurvives, .forkEvent]
        ) { context in
            let area = try Area(context)
            let descriptor = Handler.Descriptor(try UserfaultFD(features: .eventFork))
            try descriptor.uffd.register(area.range, modes: .writeProtect)
            area.fillView()
            try descriptor.uffd.writeProtect(area.pages(1..<3), .protect)
            let child = try Child.reported(
                by: descriptor,
                [
                    .store(area.address(0), 1), .pause, .store(area.address(1), 0xC1), .load(area.address(1)),
                    .pagemap(area.address(1)), .pagemap(area.address(2)),
                ])
            let own = child.descriptor!
            try child.waitPaused()
            try own.uffd.expectNoMessage("page 0 was never protected")
            try child.resume()
            try own.uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try descriptor.uffd.expectNoMessage("the fault is the child's")
            try descriptor.uffd.expectWaiters(total: 0)
            // The parent's page goes on being protected, and the child's other one.
            try own.uffd.writeProtect(area.page(1), .unprotect)
            try area.expectProtected([1, 2], "in the parent")
            try expectEqual(try child.finish()[2...3], [0, 0xC1], "the child's write and read")
            try expect(!child.pagemap(4).isProtected, "the child's page unprotected by its own userfaultfd")
            try expect(child.pagemap(5).isProtected, "the child's other page protected")

            let byte = context.memory.isPrivate ? Pattern.byte(page: 1) : 0xC1
            try expectEqual(Touch.load(area.address(1)), .byte(byte), "byte of the parent")
            let touch = try Touch.write(area.address(1), 0xAA)
            try descriptor.uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try descriptor.uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 0xAA)
            try area.expectProtected([2], "in the parent after its write")
        },
    ]

    /// Before Linux 6.4, which came with WP_UNPOPULATED, a fork may mistake the protection of private huge pages.
    private static func requireForkOfHugePages(_ context: CaseContext) throws {
        guard context.memory == .hugetlbPrivate else { return }
        guard try UserfaultFD().supportedFeatures.contains(.writeProtectUnpopulated) else {
            try context.skip(kernel: "a fork mistakes the protection of private huge pages before Linux 6.4")
        }
    }

    /// Takes the pages out of the page table: the file keeps those of a shared mapping, swap space those of a private one.
    private static func evict(_ area: Area, _ context: CaseContext) throws {
        if !area.memory.isPrivate {
            try area.zapView()
            try expect(
                PagemapEntry.entries(of: area.range).allSatisfy { !$0.isPresent }, "no page is in the page table")
        } else if !area.memory.isHugetlb, ProcFile.number("SwapFree", in: "/proc/meminfo") ?? 0 > 0 {
            try area.swapOut(0..<4)
        } else {
            context.record("private pages stay where they are: there is no swap space for them")
        }
    }

    private static func fork(_ context: CaseContext, reported: Bool) throws {
        if !reported { try requireForkOfHugePages(context) }
        let area = try Area(context)
        let descriptor = Handler.Descriptor(try UserfaultFD(features: reported ? .eventFork : []))
        try descriptor.uffd.register(area.range, modes: .writeProtect)
        area.fillView()
        try descriptor.uffd.writeProtect(area.pages(1..<3), .protect)
        try area.expectProtected([1, 2], "before the fork")

        try expectChild(of: area, descriptor, protected: reported, "pages in memory")
        try area.expectProtected([1, 2], "in the parent after the fork")

        try evict(area, context)
        try area.expectProtected([1, 2], "in the parent after eviction")
        try expectChild(of: area, descriptor, protected: reported, "pages evicted")
        try area.expectProtected([1, 2], "in the parent after the fork with pages evicted")

        try descriptor.uffd.writeProtect(area.pages(1..<3), .unprotect)
        try area.expectProtected([], "after unprotecting")
        try expectEqual(Touch.store(area.address(1), 9), .byte(9), "a write of the parent")
        try area.expectProtected([], "after the write")
        try area.expectView(2, "contents of the parent")
    }

    private static func expectChild(
        of area: Area, _ descriptor: Handler.Descriptor, protected: Bool, _ what: String
    ) throws {
        // The second look follows a read, which brings the page in where the fork left it out.
        let steps: [Child.Step] = [
            .pagemap(area.address(0)), .pagemap(area.address(1)), .load(area.address(1)), .pagemap(area.address(1)),
            .pagemap(area.address(2)), .pagemap(area.address(3)),
        ]
        let child = protected ? try Child.reported(by: descriptor, steps) : try Child(steps)
        let results = try child.finish()
        for (step, page) in [(0, 0), (1, 1), (3, 1), (4, 2), (5, 3)] {
            try expectEqual(
                try child.pagemap(step).isProtected, protected && (1...2).contains(page),
                "protection of the child's page \(page) at step \(step), \(what)")
        }
        let byte = Pattern.byte(page: 1)
        try expectEqual(results[2], Int64(byte), "byte that the child reads, \(what)")

        guard !protected else { return }
        // A plain write, which nobody would resolve: to private memory, so that the parent's stays as it is.
        if area.memory.isPrivate {
            let writer = try Child([.store(area.address(1), 0xC4), .load(area.address(1)), .pagemap(area.address(1))])
            try expectEqual(try writer.finish().prefix(2), [0, 0xC4], "the child's write and read, \(what)")
            try expect(!writer.pagemap(2).isProtected, "the child's page unprotected after its write, \(what)")
        }
        try descriptor.uffd.expectNoMessage("the child's memory is plain")
    }

    private static func forkPinned(_ context: CaseContext, reported: Bool) throws {
        if reported { try requireForkOfHugePages(context) }
        let area = try Area(context, pages: 2)
        let descriptor = Handler.Descriptor(try UserfaultFD(features: reported ? .eventFork : []))
        try descriptor.uffd.register(area.range, modes: .writeProtect)
        area.fillView()
        let part = AddressRange(start: area.address(1), count: PageSize.base.bytes)

        // Pinned for writing, so before the protection.
        let pin = try Pin(part)
        try descriptor.uffd.writeProtect(area.page(1), .protect)
        try area.expectProtected([1], "of the pinned page")
        let look: [Child.Step] = [.pagemap(part.start), .load(part.start), .pagemap(part.start)]
        let copied = reported ? try Child.reported(by: descriptor, look) : try Child(look)
        let byte = Int64(Pattern.byte(page: 1))
        try expectEqual(try copied.finish()[1], byte, "byte that the child reads")
        try expectEqual(try copied.pagemap(0).isProtected, reported, "protection of the page that the fork copied")
        try expectEqual(try copied.pagemap(2).isProtected, reported, "protection of that page after a read")
        if context.memory == .anon {
            try expect(try PagemapEntry(of: part.start).isExclusive, "the pinned page stays the parent's alone")
        }
        try pin.release()
        try area.expectProtected([1], "in the parent")

        guard let readPin = ReadPin.available() else {
            context.record("no pin for reading: no gup_test, no O_DIRECT file")
            return
        }
        let steps = [.pagemap(part.start), readPin.step(part), .pagemap(part.start)]
        let unsharing = reported ? try Child.reported(by: descriptor, steps) : try Child(steps)
        try expectEqual(try unsharing.finish()[1], 0, "answer of the child's pin")
        let (before, after) = (try unsharing.pagemap(0), try unsharing.pagemap(2))
        try expectEqual(before.isProtected, reported, "protection in the child")
        try expectEqual(after.isProtected, reported, "protection in the child of the page that its pin unshares")
        context.record(
            after.isExclusive && !before.isExclusive ? "the child's pin unshared the page" : "nothing unshared")
        try descriptor.uffd.expectNoMessage("a pin for reading is no write")
        try area.expectProtected([1], "in the parent after the child's pin")
    }
}
