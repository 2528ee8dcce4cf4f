import SystemPackage
import UserfaultFD

/// What write-protection outlasts, and what ends it.
enum WriteProtectSurvivalCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-dropped", on: .all,
            "MADV_DONTNEED of anonymous memory ends its protection; a file's pages keep theirs, mapped or not",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            if area.file != nil { try area.fillFile() }
            area.fillView(seed: 2)
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.zapView()
            try area.expectUnprotectedMarkers()
            guard area.memory != .anon else {
                try area.expectProtected([], "after MADV_DONTNEED")
                for page in 0..<4 { try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write") }
                return try uffd.expectNoMessage("nothing is protected")
            }
            try area.expectProtected([1, 2], "after MADV_DONTNEED")
            try area.zapView()
            try area.expectProtected([1, 2], "after MADV_DONTNEED where nothing is mapped")
            try uffd.writeProtect(area.page(2), .unprotect)
            try area.expectProtected([1], "after unprotecting a page that is not mapped")
            try uffd.writeProtect(area.page(2), .protect)
            try area.view.protect(.none)
            try area.view.protect(.readWrite)
            try area.expectProtected([1, 2], "after mprotect where nothing is mapped")
            try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write to a page that was never protected")
            try area.expectView(2, seed: area.memory.isPrivate ? 0 : 2, "read in anew")
            try area.expectProtected([1, 2], "after reading")
            try expectWriteFault(area, 1, uffd)
            try expectWriteFault(area, 2, uffd)
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-hole-punch", on: .shared,
            "a page whose place in the file is punched out stays protected",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, offset: 1)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.punchHole(0..<2)
            try area.expectProtected([1, 2], "after punching pages 0 and 1 out")
            try area.expectZeroView(0)
            try area.expectZeroView(1)
            try area.expectProtected([1, 2], "after reading the hole")
            try expectWriteFault(area, 1, uffd)
            try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write to the hole that was not protected")
            try area.expectView(2)
            try area.expectProtected([2], "at the end")
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-swap", on: .smallPages,
            "protection outlasts swapping out and in, and can be set and lifted while a page is out",
            requires: [.writeProtectFaults, .swap], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.swapOut(0..<4)
            try area.expectProtected([1, 2], "while swapped out")
            // Changed while out.
            try uffd.writeProtect(area.page(0), .protect)
            try uffd.writeProtect(area.page(2), .unprotect)
            try area.expectProtected([0, 1], "after changes while swapped out")
            try area.expectView(0, "swapped in by a read")
            try area.expectProtected([0, 1], "after swapping in by a read")
            try expectWriteFault(area, 1, uffd)
            try expectWriteFault(area, 0, uffd)
            for page in 2..<4 {
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write to page \(page)")
            }
            try area.expectProtected([], "at the end")
            try uffd.expectNoMessage("all is resolved")
            for page in 0..<2 {
                Pattern.write(seed: 0, page: page, at: area.address(page), count: 8)
                try area.expectView(page, "after swapping")
            }
        },
        SelftestCase(
            "wp-dropped-swapped", on: .smallPages,
            "MADV_DONTNEED of a protected page that is swapped out does as for one that is not",
            requires: [.writeProtectFaults, .swap, .features(.writeProtectUnpopulated)], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.swapOut(0..<4)
            try area.zapView()
            try area.expectProtected(area.memory == .anon ? [] : [1, 2], "after MADV_DONTNEED")
            try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write to a page that was never protected")
            if area.memory != .anon { try expectWriteFault(area, 1, uffd) }
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-swapoff", on: [.anon, .shmem, .shmemPrivate],
            "swapoff brings protected pages back protected, and no others",
            requires: [.writeProtectFaults, .ownSwap], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.swapOut(0..<4)
            try area.expectProtected([1, 2], "while swapped out")
            try context.turnSwapOff()
            guard try !area.hasSwappedPages() else { try context.skip(thisTime: "pages went to other swap space") }
            try area.expectProtected([1, 2], "after swapoff")
            for page in 0..<4 { try area.expectView(page, "after swapoff") }
            for page in [0, 3] { try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write beside them") }
            for page in 1..<3 { try expectWriteFault(area, page, uffd) }
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-mprotect", on: .all,
            "protection outlasts mprotect to read-only, to nothing and back; a write is refused by mprotect first",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            for protection in [MemoryProtection.read, .none] {
                try area.view.protect(protection)
                try area.expectProtected([1, 2], "after mprotect to \(protection)")
                guard case .signal = Touch.store(area.address(1), 1) else {
                    throw CaseFailure(
                        expected: "SIGSEGV for a write to \(protection) memory", seen: "the byte is written")
                }
                // Still possible: lifting and setting protection by userfaultfd.
                try uffd.writeProtect(area.page(1), .unprotect)
                try uffd.writeProtect(area.page(1), .protect)
                guard case .signal = Touch.store(area.address(0), 1) else {
                    throw CaseFailure(
                        expected: "SIGSEGV for a write to \(protection) memory", seen: "the byte is written")
                }
            }
            try uffd.expectNoMessage("mprotect refuses first")
            try area.view.protect(.readWrite)
            try area.expectProtected([1, 2], "after mprotect back")
            try expectWriteFault(area, 1, uffd)
            for page in [0, 3] {
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write beside the range")
            }
            try area.expectView(2)
            try area.expectProtected([2], "at the end")
        },
        SelftestCase(
            "wp-remap-with-event", on: .all,
            "with EVENT_REMAP protection moves along with the mapping",
            requires: [.writeProtectFaults, .features(.eventRemap)], covers: [.protectionSurvives, .remapEvent]
        ) { context in
            let area = try Area(context)
            let target = try Area(context)
            let uffd = try UserfaultFD(features: .eventRemap)
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            let call = try BackgroundCall { try Remapping.move(area.range, to: target.range) }
            guard case .remap(let from, let to, let count) = try uffd.expectMessage("a REMAP event") else {
                throw CaseFailure(expected: "a REMAP event", seen: "another event")
            }
            try expectEqual(
                [from, to, UInt(count)], [area.range.start, target.range.start, UInt(area.range.count)], "REMAP")
            try call.finish()
            try target.expectProtected([1, 2], "after the move")
            for page in 0..<4 { try target.expectView(page) }
            try expectWriteFault(target, 1, uffd)
            try expectEqual(Touch.store(target.address(0), 1), .byte(1), "a write to a page that was never protected")
            try target.expectProtected([2], "after the write")
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-copy-over-marker", on: .all,
            "COPY onto a protected page that is not mapped keeps the protection with MODE_WP, and drops it without",
            requires: [.writeProtectFaults, .missingFaults, .features(.writeProtectUnpopulated)],
            covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered([.missing, .writeProtect], features: .writeProtectUnpopulated)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected([0, 1, 2, 3], "while empty")
            let source = try area.source(1..<3)
            try uffd.copy(from: source, to: area.pages(1..<3), options: .writeProtect)
            try area.expectProtected([0, 1, 2, 3], "after COPY with MODE_WP")
            for page in 1..<3 { try area.expectView(page) }
            try area.expectProtected([0, 1, 2, 3], "after reading")
            try uffd.copy(from: area.source(0..<1), to: area.page(0))
            try area.expectProtected([1, 2, 3], "after COPY without it")
            try expectEqual(Touch.store(area.address(0), 1), .byte(1), "a write where the protection was dropped")
            let touch = try Touch.write(area.address(2), 1)
            try uffd.expectFault(at: area.address(2), [.write, .writeProtect])
            try uffd.writeProtect(area.page(2), .unprotect)
            try touch.finish(with: 1)
        },
        SelftestCase(
            "wp-continue-over-marker", on: .pageCache,
            "CONTINUE onto a protected page that is not mapped keeps the protection with MODE_WP, and drops it without",
            requires: [.writeProtectFaults, .minorFaults, .features(.writeProtectUnpopulated)],
            covers: [.protectionSurvives, .minorProtection]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try area.fillFile()
            try uffd.register(area.range, modes: [.minor, .writeProtect])
            try uffd.writeProtect(area.pages(1..<4), .protect)
            try uffd.continue(area.page(1), options: .writeProtect)
            try uffd.continue(area.page(2))
            try uffd.continue(area.page(0), options: .writeProtect)
            try area.expectProtected([0, 1, 3], "after CONTINUE")
            for page in 0..<3 { try area.expectView(page) }
            try expectEqual(Touch.store(area.address(2), 1), .byte(1), "a write where the protection was dropped")
            for page in [0, 1] {
                let touch = try Touch.write(area.address(page), 1)
                try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                try uffd.writeProtect(area.page(page), .unprotect)
                try touch.finish(with: 1)
            }
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "wp-zeropage-over-marker", on: .smallPages,
            "ZEROPAGE onto a protected page that is not mapped answers EEXIST, or overwrites a marker of shared memory",
            requires: [.writeProtectFaults, .missingFaults, .features(.writeProtectUnpopulated)],
            covers: [.protectionSurvives, .zeropage]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered([.missing, .writeProtect], features: .writeProtectUnpopulated)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            let isRefused = area.memory.isPrivate
            try expectEqual(
                uffd.raw(.zeropage, area.page(1)), isRefused ? .failed(.fileExists) : .done(area.pageSize.bytes),
                "ZEROPAGE onto a marker")
            try area.expectProtected(isRefused ? [1, 2] : [2], "after ZEROPAGE")
            if !isRefused { try area.expectZeroView(1) }
        },
    ]

    /// A write to a page must be a fault; it is let go then.
    private static func expectWriteFault(_ area: Area, _ page: Int, _ uffd: borrowing UserfaultFD) throws {
        let touch = try Touch.write(area.address(page), 0xEE)
        try Waiting.until("a write to page \(page) is a fault") { try touch.isFinished || uffd.poll(timeout: .zero) }
        try expect(!touch.isFinished, "a write to page \(page) is a fault", seen: "it goes through")
        try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
        try uffd.writeProtect(area.page(page), .unprotect)
        try touch.finish(with: 0xEE)
    }
}

extension Area {
    /// Fails if a page is mapped, or swapped, that is not protected either.
    fileprivate func expectUnprotectedMarkers() throws {
        try expect(
            try PagemapEntry.entries(of: range).allSatisfy { !$0.isPresent && ($0.isProtected || !$0.isSwapped) },
            "nothing but markers is left after MADV_DONTNEED")
    }
}
