import UserfaultFD

/// Write-protection of pages that are not there: markers in empty page table entries.
enum WriteProtectUnpopulatedCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-unpopulated", on: [.anon],
            "with WP_UNPOPULATED an empty page of anonymous memory can be protected, and loses that when it is dropped",
            requires: [.writeProtectFaults, .features(.writeProtectUnpopulated)], covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.writeProtect, features: .writeProtectUnpopulated)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "while empty")
            try uffd.writeProtect(area.page(1), .unprotect)
            try area.expectProtected([2], "after unprotecting one empty page")
            try uffd.writeProtect(area.page(1), .protect)
            try area.zapView(area.page(1))
            try area.expectProtected([2], "after MADV_DONTNEED")
            try expectEqual(Touch.store(area.address(1), 7), .byte(7), "a write to the dropped page")
            try area.expectProtected([2], "after the write")
            try area.zapView(area.page(1))

            // A read puts the zero page where the marker was; a write to it is a fault.
            try uffd.writeProtect(area.page(1), .protect)
            try area.expectZeroView(1)
            try area.expectProtected([1, 2], "after a read of the protected page")
            try uffd.expectNoMessage("a read is no write")
            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectProtected([2], "after the write is let go")
            try area.zapView()
            try area.expectProtected([], "after dropping all")
            try expect(
                try PagemapEntry.entries(of: area.range).allSatisfy { !$0.isPresent && !$0.isSwapped },
                "nothing left in the page table")
        },
        SelftestCase(
            "wp-empty-anon-untracked", on: [.anon],
            "without WP_UNPOPULATED an empty page of anonymous memory is not protected",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.writeProtect)
            try expectEqual(Touch.store(area.address(2), 1), .byte(1), "a write before")
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected([2], "where only page 2 is there")
            try expectEqual(Touch.store(area.address(1), 7), .byte(7), "a write to a page that was empty")
            try uffd.expectNoMessage("the page was not there to be protected")
            try area.expectProtected([2], "after the write")
        },
        SelftestCase(
            "wp-marker-write", on: .all,
            "a write to a protected page that is not there brings the page in and is then one WP fault; neighbours are "
                + "as they were",
            requires: [.writeProtectFaults, .unmappedProtection], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: area.file == nil ? .writeProtectUnpopulated : [])
            if area.file != nil { try area.fillFile() }
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "while the pages are not mapped")

            // A read of an unprotected neighbour must not map, nor change, the protected ones.
            _ = Touch.load(area.address(0))
            _ = Touch.load(area.address(3))
            try area.expectProtected([1, 2], "after reads of the neighbours")

            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try uffd.expectNoMessage("one write makes one message")
            let first = Touch.load(area.address(1))
            let pattern = Pattern.byte(page: 1)
            try expectEqual(first, .byte(area.file == nil ? 0 : pattern), "the byte while the write waits")
            try area.expectProtected([1, 2], "while the write waits")
            try uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectProtected([2], "after the write")
            try uffd.expectNoMessage("the write is done")
            if area.file == nil {
                try area.expectZeroView(2)
            } else {
                try area.expectView(2, "of the protected page, read")
            }
            try area.expectProtected([2], "after a read")
        },
        SelftestCase(
            "wp-empty-tables", on: .all,
            "pages are protected also where there are no page tables yet",
            requires: [.writeProtectFaults, .features(.writeProtectUnpopulated)], covers: [.protectionSurvives]
        ) { context in
            let count = context.memory.isHugetlb ? 4 : 3 * Area.hugePageCount
            let area = try Area(context, pages: count, alignment: Area.hugePageBytes)
            let uffd = try area.registered(.writeProtect, features: .writeProtectUnpopulated)
            let middle = count / 3..<2 * count / 3
            try uffd.writeProtect(area.pages(middle), .protect)
            try area.expectProtected(Array(middle), "where nothing was ever mapped")
            let touch = try Touch.write(area.address(middle.lowerBound), 1)
            try uffd.expectFault(at: area.address(middle.lowerBound), [.write, .writeProtect])
            try uffd.writeProtect(area.pages(middle), .unprotect)
            try touch.finish(with: 1)
            try area.expectProtected([], "after unprotecting")
        },
        SelftestCase(
            "wp-marker-mprotect", on: .all,
            "the protection of pages that are not there outlasts mprotect to read-only, to nothing and back",
            requires: [.writeProtectFaults, .features(.writeProtectUnpopulated)], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.writeProtect, features: .writeProtectUnpopulated)
            // A page beside them, so that there is a page table, whatever the kernel skips where there is none.
            try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write before")
            try uffd.writeProtect(area.pages(1..<3), .protect)
            for protection in [MemoryProtection.read, .none, .readWrite] {
                try area.view.protect(protection)
                try area.expectProtected([1, 2], "after mprotect to \(protection)")
            }
            let touch = try Touch.write(area.address(2), 0xEE)
            try uffd.expectFault(at: area.address(2), [.write, .writeProtect])
            try uffd.writeProtect(area.page(2), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectProtected([1], "after the write is let go")
        },
        SelftestCase(
            "wp-marker-missing", on: .all,
            "where missing faults are registered too, a write to a protected hole is first a missing fault, then WP",
            requires: [.writeProtectFaults, .missingFaults, .features(.writeProtectUnpopulated)],
            covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered([.missing, .writeProtect], features: .writeProtectUnpopulated)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "while empty")

            // COPY with MODE_WP keeps the protection.
            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), .write)
            let source = try area.source(1..<3)
            try expectEqual(
                uffd.copy(from: source.range.start, to: area.page(1), options: .writeProtect), area.pageSize.bytes,
                "bytes copied over the marker")
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try area.expectProtected([1, 2], "while the write waits")
            try area.expectView(1, "while the write waits")
            try uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectProtected([2], "after the write")

            // COPY without it drops the marker.
            let plain = try Touch.write(area.address(2), 0xDD)
            try uffd.expectFault(at: area.address(2), .write)
            try uffd.copy(from: source.range.start + UInt(area.pageSize.bytes), to: area.page(2))
            try plain.finish(with: 0xDD)
            try area.expectProtected([], "after COPY without MODE_WP")
            try uffd.expectNoMessage("all is resolved")
        },
    ]
}
