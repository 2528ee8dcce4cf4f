import SystemPackage
import UserfaultFD

/// What read-write-protection stops, outlasts and ends with, beyond upstream's tests; and SET_MODE.
enum ReadWriteProtectModelCases: CaseTheme {
    private static let requires: [Requirement] = [.features(.readWriteProtect)]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "rwp-empty", on: .all,
            "RWPROTECT leaves pages that are not there alone, and a page put there by COPY is accessible",
            requires: requires + [.missingFaults], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered([.missing, .readWriteProtect], features: .readWriteProtect)
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            try area.expectProtected([], "after COPY")
            try area.expectView(1)
            try uffd.rwProtect(area.range, .protect)
            try area.expectProtected([1], "where only page 1 is there")
            let missing = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), [])
            try uffd.copy(from: area.source(2..<3), to: area.page(2))
            try missing.finish(with: Pattern.byte(page: 2))
            let protected = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .readWriteProtect)
            try uffd.rwProtect(area.page(1), .unprotect)
            try protected.finish(with: Pattern.byte(page: 1))
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "rwp-continue", on: .pageCache,
            "a page mapped by CONTINUE in memory registered for RWP is accessible, and can be protected then",
            requires: requires + [.minorFaults], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            try area.fillFile()
            try uffd.register(area.range, modes: [.minor, .readWriteProtect])
            try uffd.rwProtect(area.range, .protect)
            try area.expectProtected([], "while nothing is mapped")
            try uffd.continue(area.pages(1..<3))
            for page in 1..<3 { try area.expectView(page) }
            try uffd.rwProtect(area.range, .protect)
            try area.expectProtected([1, 2], "where pages 1 and 2 are mapped")
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .readWriteProtect)
            try uffd.rwProtect(area.page(1), .unprotect)
            try touch.finish(with: Pattern.byte(page: 1))
            // Dropped, the protection is gone and the fault is a minor one.
            try area.zapView(area.page(2))
            try area.expectProtected([], "after MADV_DONTNEED")
            let minor = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), .minor)
            try uffd.continue(area.page(2))
            try minor.finish(with: Pattern.byte(page: 2))
        },
        SelftestCase(
            "rwp-dropped", on: .all,
            "MADV_DONTNEED ends read-write-protection: the next access is an ordinary one",
            requires: requires, covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            try area.zapView(area.pages(1..<3))
            try area.expectProtected([0, 3], "after MADV_DONTNEED")
            for page in 1..<3 {
                if area.memory.isPrivate { try area.expectZeroView(page) } else { try area.expectView(page) }
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write")
            }
            try uffd.expectNoMessage("nothing is protected there")
            if !area.memory.isPrivate {
                try area.punchHole(3..<4)
                try area.expectProtected([0], "after punching page 3 out")
                try area.expectZeroView(3)
            }
        },
        SelftestCase(
            "rwp-swap", on: .smallPages,
            "read-write-protection of private pages outlasts swapping, and can be set and lifted meanwhile",
            requires: requires + [.swap], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            guard area.memory.isPrivate else {
                // A shared page that is swapped out is gone from the page table, and its protection with it.
                try area.swapOut(0..<4)
                for page in 0..<4 { try area.expectView(page, "swapped in") }
                try area.expectProtected([], "after swapping in")
                return try uffd.expectNoMessage("nothing is protected")
            }
            try area.swapOut(0..<4)
            try area.expectProtected([1, 2], "while swapped out")
            try uffd.rwProtect(area.page(0), .protect)
            try uffd.rwProtect(area.page(2), .unprotect)
            try area.expectProtected([0, 1], "after changes while swapped out")
            for page in 0..<2 {
                let touch = try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), .readWriteProtect)
                try uffd.rwProtect(area.page(page), .unprotect)
                try touch.finish(with: Pattern.byte(page: page))
            }
            for page in 0..<4 { try area.expectView(page, "after swapping") }
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "rwp-release", on: .all,
            "unregistering makes protected pages accessible; those who wait for one go on when they are woken",
            requires: requires, covers: [.release, .readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .readWriteProtect)
            try touch.thread.waitAsleep()
            try uffd.unregister(area.range)
            try touch.thread.expectStillAsleep("UNREGISTER wakes no RWP waiter")
            try uffd.wake(area.range)
            try touch.finish(with: Pattern.byte(page: 1))
            try area.expectProtected([], "after unregistering")
            for page in 0..<4 {
                try area.expectView(page)
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write to page \(page)")
            }
        },
        SelftestCase(
            "rwp-kernel", on: .all,
            "the kernel's access to a protected page fails where only user faults are handled, and changes nothing",
            requires: requires, covers: [.kernelFaults, .readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            var byte: UInt8 = 0
            try expectEqual(ProcessMemory.read(area.address(1), &byte), -14, "answer of process_vm_readv (EFAULT)")
            try expectEqual(ProcessMemory.write(area.address(2), 0xEE), -14, "answer of process_vm_writev (EFAULT)")
            try area.expectProtected([1, 2], "after accesses that were refused")
            try uffd.expectNoMessage("faults of the kernel are not handled")
            try uffd.rwProtect(area.range, .unprotect)
            for page in 0..<4 { try area.expectView(page) }
        },
        SelftestCase(
            "rwp-waiters", on: .all,
            "lifting the protection lets go of all who wait in its range and of nobody beside it; protecting wakes nobody",
            requires: requires + [.threads(10)], covers: [.waking, .readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            let touches = try [0, 1, 1, 2, 3].map { page in
                let touch = try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), .readWriteProtect)
                try touch.thread.waitAsleep()
                return touch
            }
            try uffd.rwProtect(area.range, .protect)
            try expectErrno(uffd.raw(.readWriteProtect, area.range, mode: 3), .invalidArgument, "RWP|DONTWAKE")
            for touch in touches { try touch.thread.expectStillAsleep("protecting wakes nobody") }
            try uffd.rwProtect(area.pages(1..<3), .unprotect)
            for (index, page) in [(1, 1), (2, 1), (3, 2)] {
                try touches[index].finish(with: Pattern.byte(page: page))
            }
            for index in [0, 4] { try touches[index].thread.expectStillAsleep("its page is protected still") }
            try uffd.rwProtect(area.range, .unprotect)
            try touches[0].finish(with: Pattern.byte(page: 0))
            try touches[4].finish(with: Pattern.byte(page: 3))
            try uffd.expectNoMessage("all have gone on")
        },
        SelftestCase(
            "rwp-move", on: [.anon],
            "MOVE into memory registered for RWP protects what it moves: a page, the zero page, a swapped page",
            requires: requires + [.features(.move), .swap], covers: [.movedState, .readWriteProtect]
        ) { context in
            let source = try Area(context)
            let destination = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            for page in [0, 2, 3] {
                Pattern.write(seed: 0, page: page, at: source.address(page), count: PageSize.base.bytes)
            }
            _ = Touch.load(source.address(1))
            try source.swapOut(2..<3)
            try uffd.register(destination.range, modes: [.missing, .readWriteProtect])
            try uffd.move(from: source.range.start, to: destination.range)
            try destination.expectProtected([0, 1, 2, 3], "after MOVE")
            for page in 0..<4 {
                let touch = try Touch.read(destination.address(page))
                try uffd.expectFault(at: destination.address(page), .readWriteProtect)
                try uffd.rwProtect(destination.page(page), .unprotect)
                try touch.finish(with: page == 1 ? 0 : Pattern.byte(page: page))
            }
            for page in [0, 2, 3] { try destination.expectView(page) }
            try expectEqual(Touch.store(destination.address(0), 1), .byte(1), "a write")
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "rwp-huge", on: [.anon],
            "a transparent huge page is read-write-protected whole, accessed and moved so, and in part",
            requires: requires + [.features(.move), .transparentHugePages], covers: [.readWriteProtect]
        ) { context in
            let area = try Area.transparentHuge(context, count: 1)
            let destination = try Area(context, pages: area.pageCount, alignment: Area.hugePageBytes)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            let all = Array(0..<area.pageCount)
            try uffd.register(destination.range, modes: .readWriteProtect)
            try expectEqual(
                uffd.raw(.move, destination.range, source: area.range.start), .done(area.range.count), "MOVE of it")
            try destination.expectProtected(all, "after MOVE")
            try expectEqual(try destination.hugeBytes(), area.range.count, "bytes in huge pages after MOVE")
            try destination.view.protect(.none)
            try destination.view.protect(.readWrite)
            try destination.expectProtected(all, "after mprotect")
            let touch = try Touch.read(destination.address(5))
            try uffd.expectFault(at: destination.address(5), .readWriteProtect)
            try touch.thread.waitAsleep()
            try uffd.rwProtect(destination.range, .unprotect)
            try touch.finish(with: Pattern.byte(page: 5))
            try destination.expectProtected([], "after unprotecting all")
            try expectPatterns(0..<area.pageCount, at: destination.range.start, "the huge page")
            try uffd.rwProtect(destination.range, .protect)
            try uffd.rwProtect(destination.pages(7..<9), .unprotect)
            try destination.expectProtected(all.filter { !(7..<9).contains($0) }, "after unprotecting two pages")
            for page in 7..<9 { try expectEqual(Touch.store(destination.address(page), 1), .byte(1), "a write") }
            let other = try Touch.write(destination.address(9), 1)
            try uffd.expectFault(at: destination.address(9), [.write, .readWriteProtect])
            try uffd.rwProtect(destination.page(9), .unprotect)
            try other.finish(with: 1)
            try uffd.rwProtect(destination.range, .unprotect)
            for page in all where !(7...9).contains(page) { try destination.expectView(page, "after splitting") }
        },
        SelftestCase(
            "rwp-async-huge", on: [.anon],
            "with RWP_ASYNC an access to a protected huge page restores it, without a message",
            requires: requires + [.features(.readWriteProtectAsync), .transparentHugePages], covers: [.readWriteProtect]
        ) { context in
            let area = try Area.transparentHuge(context, count: 2)
            let uffd = try area.registered(.readWriteProtect, features: [.readWriteProtect, .readWriteProtectAsync])
            try uffd.rwProtect(area.range, .protect)
            try area.expectProtected(Array(0..<area.pageCount), "after protecting all")
            let half = area.pageCount / 2
            try area.expectView(half + 3)
            try area.expectProtected(Array(0..<half), "after reading in the second huge page")
            try expectEqual(Touch.store(area.address(3), 1), .byte(1), "a write to the first huge page")
            try area.expectProtected([], "after writing in the first huge page")
            for page in 0..<area.pageCount where page != 3 { try area.expectView(page) }
            try uffd.expectNoMessage("asynchronous faults make none")
        },
    ]
}
