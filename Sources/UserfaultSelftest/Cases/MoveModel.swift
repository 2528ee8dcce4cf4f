import SystemPackage
import UserfaultFD

/// What MOVE does to the page, to its neighbours, to the source and to the accounts.
enum MoveModelCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move-range", on: [.anon],
            "MOVE takes exactly the range asked for, page by page in order, and nothing beside it",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context, pages: 8)
            let uffd = try destination.registered(.missing)
            let before = try (
                MappingAccount(holding: source.range.start), MappingAccount(holding: destination.range.start)
            )
            let part = destination.pages(4..<7)
            try expectEqual(uffd.raw(.move, part, source: source.address(2)), .done(part.count), "MOVE of three pages")

            for page in 0..<8 {
                let isMoved = (2..<5).contains(page)
                try expectEqual(
                    try PagemapEntry(of: source.address(page)).isPresent, !isMoved, "page \(page) left in the source")
                try expectEqual(
                    try PagemapEntry(of: destination.address(page)).isPresent, (4..<7).contains(page),
                    "page \(page) in the destination")
                if !isMoved { try source.expectView(page, "a page beside the range") }
            }
            try expectPatterns(2..<5, at: destination.address(4), "moved pages")
            let after = try (
                MappingAccount(holding: source.range.start), MappingAccount(holding: destination.range.start)
            )
            let moved = part.count >> 10
            for key in ["Rss", "Anonymous", "Private_Dirty"] {
                try expectEqual(after.0[key], before.0[key] - moved, "\(key) of the source, KiB")
                try expectEqual(after.1[key], before.1[key] + moved, "\(key) of the destination, KiB")
            }
            for page in 2..<5 { try source.expectZeroView(page) }
            // The source is plain memory still.
            try expectEqual(Touch.store(source.address(3), 9), .byte(9), "a write to the source")
            try expectPatterns(2..<5, at: destination.address(4), "moved pages after a write to the source")
            try uffd.expectNoMessage("the source is not registered")
        },
        SelftestCase(
            "move-frame", on: [.anon],
            "MOVE copies nothing: the page frame itself goes over, mapped once and counted once",
            requires: [.features(.move), .pageFrames], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let before = try PageFrame(of: source.address(1))
            try uffd.move(from: source.address(1), to: destination.page(2))
            let after = try PageFrame(of: destination.address(2))
            try expectEqual(after.number, before.number, "page frame")
            try expectEqual(after.mapCount, 1, "map count of the page frame")
            try expect(
                after.flags.contains([.anonymous, .swapBacked]), "the page is anonymous", seen: "\(after.flags)")
            try expect(try PagemapEntry(of: destination.address(2)).isExclusive, "the page is mapped here alone")

            // It moves on with the page tables: a fork shares it, and unmapping gives it back.
            let child = try Child([.load(destination.address(2)), .store(destination.address(2), 1)])
            let byte = Int64(Pattern.byte(page: 1))
            try expectEqual(try child.finish(), [byte, 0], "what the child reads and writes")
            try Pattern.expect(
                seed: 0, page: 1, at: destination.address(2), count: PageSize.base.bytes,
                "the page after the child's write"
            )
            try expectEqual(try PageFrame(of: destination.address(2)).mapCount, 1, "map count after the child")
            try destination.zapView()
            try expect(!PagemapEntry(of: destination.address(2)).isPresent, "the page is gone after MADV_DONTNEED")
        },
        SelftestCase(
            "move-writable", on: [.anon],
            "a moved page can be written at once, and keeps what was written when it is swapped",
            requires: [.features(.move), .swap], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            // Out and in again: the pages are clean copies of what swap holds, and one is dirtied then.
            try source.swapOut(0..<4)
            for page in 0..<4 { try source.expectView(page) }
            Pattern.write(seed: 3, page: 1, at: source.address(1), count: PageSize.base.bytes)
            let uffd = try destination.registered(.missing)
            try uffd.move(from: source.range.start, to: destination.range)
            try destination.expectView(1, seed: 3)
            Pattern.write(seed: 5, page: 2, at: destination.address(2), count: PageSize.base.bytes)
            try destination.swapOut(0..<4, isProven: true)
            for (page, seed) in [(0, 0), (1, 3), (2, 5), (3, 0)] as [(Int, UInt8)] {
                try destination.expectView(page, seed: seed, "after swapping a moved page")
            }
            try uffd.expectNoMessage("swapped pages are not missing")
        },
        SelftestCase(
            "move-soft-dirty", on: [.anon],
            "a moved page counts as changed",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            guard try PagemapEntry(of: source.address(1)).isSoftDirty else {
                try context.skip(kernel: "this kernel does not track soft-dirty pages")
            }
            let uffd = try destination.registered(.missing)
            try context.clearSoftDirty()
            try expect(!PagemapEntry(of: source.address(1)).isSoftDirty, "the source's page is clean")
            try uffd.move(from: source.address(1), to: destination.page(1))
            try expect(try PagemapEntry(of: destination.address(1)).isSoftDirty, "the moved page is soft-dirty")
            // A page that is not dirty at all counts, too.
            try source.view.advise(.free, source.page(2))
            try expect(!PagemapEntry(of: source.address(2)).isSoftDirty, "the source's freed page is clean")
            try uffd.move(from: source.address(2), to: destination.page(2))
            try expect(try PagemapEntry(of: destination.address(2)).isSoftDirty, "the moved clean page is soft-dirty")
        },
        SelftestCase(
            "move-drops-protection", on: [.anon],
            "a moved page is not write-protected, whatever the source's was and the destination's registration is",
            requires: [.features(.move), .writeProtectFaults], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try source.registered(.writeProtect)
            try uffd.writeProtect(source.pages(1..<3), .protect)
            try uffd.register(destination.range, modes: [.missing, .writeProtect])
            try expectEqual(
                uffd.raw(.move, destination.pages(0..<3), source: source.address(0)), .done(3 * PageSize.base.bytes),
                "MOVE of one plain and two protected pages")
            try destination.expectProtected([], "after MOVE")
            try source.expectProtected([], "in the source after MOVE")
            for page in 0..<3 {
                try destination.expectView(page)
                try Touch.write(destination.address(page), 1).finish(with: 1)
            }
            try uffd.expectNoMessage("moved pages are not protected")
            // The destination can be protected as ever.
            try uffd.writeProtect(destination.page(1), .protect)
            let touch = try Touch.write(destination.address(1), 2)
            try uffd.expectFault(at: destination.address(1), [.write, .writeProtect])
            try uffd.writeProtect(destination.page(1), .unprotect)
            try touch.finish(with: 2)
        },
        SelftestCase(
            "move-zero-page", on: [.anon],
            "MOVE of the zero page moves a zero page: it uses no memory, and a write makes a page of it",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let (source, destination) = try (Area(context), Area(context))
            for page in 0..<4 { _ = Touch.load(source.address(page)) }
            try expect(try PagemapEntry(of: source.address(1)).isPresent, "the zero page is mapped in the source")
            let uffd = try destination.registered(.missing)
            let part = destination.pages(1..<3)
            try expectEqual(uffd.raw(.move, part, source: source.address(1)), .done(part.count), "MOVE of zero pages")
            try expect(!PagemapEntry(of: source.address(1)).isPresent, "nothing is left in the source")
            try expect(try PagemapEntry(of: destination.address(1)).isPresent, "something is mapped in the destination")
            try expectEqual(try MappingAccount(holding: destination.range.start)["Rss"], 0, "Rss of zero pages, KiB")
            for page in 1..<3 { try destination.expectZeroView(page) }
            try expectEqual(Touch.store(destination.address(1), 7), .byte(7), "a write to a moved zero page")
            try destination.expectZeroView(2)
            try expectEqual(Touch.load(source.address(0)), .byte(0), "the zero page itself")
            try expectEqual(
                try MappingAccount(holding: destination.range.start)["Rss"], PageSize.base.bytes / 1024,
                "Rss after one write, KiB")
            try uffd.expectNoMessage("the zero page is no hole")
        },
        SelftestCase(
            "move-swapped", on: [.anon],
            "MOVE of a page that is swapped out moves the swap entry and reads nothing",
            requires: [.features(.move), .swap], covers: [.movedState, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context, pages: 6)
            try source.swapOut(1..<4)
            let uffd = try destination.registered(.missing)
            // Two swapped pages between pages in memory.
            let part = destination.pages(1..<6)
            try expectEqual(uffd.raw(.move, part, source: source.address(0)), .done(part.count), "MOVE")
            // A host that swaps may take the others too; of these nobody but MOVE could have read one.
            let swapped = try PagemapEntry.entries(of: destination.range).map(\.isSwapped)
            try expectEqual(swapped[2..<5], [true, true, true], "swapped in the destination")
            try expect(
                try PagemapEntry.entries(of: source.pages(0..<5)).allSatisfy { !$0.isPresent && !$0.isSwapped },
                "nothing left in the source")
            let account = try MappingAccount(holding: destination.range.start)
            try expect(
                account["Swap"] >= 3 * PageSize.base.bytes >> 10, "Swap of the destination, KiB: that of three pages",
                seen: "\(account["Swap"])")
            try expectEqual(try MappingAccount(holding: source.range.start)["Swap"], 0, "Swap of the source, KiB")
            try expectPatterns(0..<5, at: destination.address(1), "moved pages, swapped in")
            try source.expectZeroView(2)
            try source.expectView(5)
            try destination.swapOut(1..<6, isProven: true)
            try expectPatterns(0..<5, at: destination.address(1), "moved pages, swapped once more")
            try uffd.expectNoMessage("swapped pages are not missing")
        },
        SelftestCase(
            "move-same-vma", on: [.anon],
            "MOVE within one registered mapping leaves a missing page behind",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let area = try Area(context, pages: 8)
            let uffd = try UserfaultFD()
            for page in 0..<3 { Pattern.write(seed: 0, page: page, at: area.address(page), count: PageSize.base.bytes) }
            try uffd.register(area.range, modes: .missing)
            let part = area.pages(5..<7)
            try expectEqual(
                uffd.raw(.move, part, source: area.address(1)), .done(part.count), "MOVE within one mapping")
            try expectPatterns(1..<3, at: area.address(5), "moved pages")
            try area.expectView(0)
            for page in [1, 2, 3, 4, 7] {
                try expect(!PagemapEntry(of: area.address(page)).isPresent, "page \(page) is missing")
            }
            let touch = try Touch.write(area.address(1), 7)
            try uffd.expectFault(at: area.address(1), .write)
            try uffd.move(from: area.address(5), to: area.page(1))
            try touch.finish(with: 7)
            try expect(!PagemapEntry(of: area.address(5)).isPresent, "page 5 has gone back")
        },
        SelftestCase(
            "move-overlap", on: [.anon],
            "MOVE onto pages of the source itself answers EEXIST and moves nothing",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .missing)
            for (to, from) in [(2, 1), (1, 2), (1, 1)] {
                try expectEqual(
                    uffd.raw(.move, area.pages(to..<to + 3), source: area.address(from)), .failed(.fileExists),
                    "MOVE from page \(from) to page \(to)")
            }
            for page in 0..<6 { try area.expectView(page) }
        },
        SelftestCase(
            "move-back-and-forth", on: [.anon],
            "a page moved many times keeps its contents, and no memory is lost or counted twice",
            requires: [.features(.move)], covers: [.residentMemory, .movedState]
        ) { context in
            let areas = [try Area(context, pages: 64), try Area(context, pages: 64)]
            let uffd = try UserfaultFD()
            for area in areas { try uffd.register(area.range, modes: .missing) }
            try uffd.copy(from: areas[0].source(0..<64), to: areas[0].range)
            let before = try MappingAccount(holding: areas[0].range.start)
            for round in 0..<8 {
                let (from, to) = (areas[round % 2], areas[(round + 1) % 2])
                try expectEqual(
                    uffd.raw(.move, to.range, source: from.range.start), .done(to.range.count), "MOVE in round \(round)"
                )
                try expectEqual(try MappingAccount(holding: from.range.start)["Rss"], 0, "Rss of the source, KiB")
            }
            try expectPatterns(0..<64, at: areas[0].range.start, "pages that went back and forth")
            let after = try MappingAccount(holding: areas[0].range.start)
            for key in ["Rss", "Anonymous", "Private_Dirty", "Swap"] {
                try expectEqual(after[key], before[key], "\(key) after going back and forth, KiB")
            }
        },
    ]
}
