import CSelftestSupport
import SystemPackage
import UserfaultFD

/// MOVE where something is in the way: how far it gets, what it says, whom it wakes.
enum MoveObstacleCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move-holes", on: [.anon],
            "a hole in the source ends MOVE with ENOENT, or with ALLOW_SRC_HOLES counts as moved and stays missing",
            requires: [.features(.move)], covers: [.fillProgress, .movedState, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context, pages: 8)
            try source.zapView(source.page(2))
            let uffd = try destination.registered(.missing)
            let touches = try [1, 2].map { try Touch.read(destination.address($0)) }
            _ = try uffd.expectMessage()
            _ = try uffd.expectMessage()
            for touch in touches { try touch.thread.waitAsleep() }

            let base = PageSize.base.bytes
            let part = destination.pages(0..<5)
            try expectEqual(uffd.raw(.move, part, source: source.address(0)), .partial(2 * base), "MOVE up to a hole")
            try touches[0].finish(with: Pattern.byte(page: 1))
            try touches[1].thread.expectStillAsleep("its page was not moved")
            try uffd.expectWaiters(pending: 0, total: 1)
            try expectEqual(
                uffd.raw(.move, destination.pages(2..<5), source: source.address(2)), .failed(.noSuchFileOrDirectory),
                "MOVE of a hole")
            for page in 3..<8 { try source.expectView(page, "a page behind the hole") }
            try touches[1].thread.expectStillAsleep("nothing was moved")
            try uffd.expectNoMessage("a refused MOVE wakes nobody")

            // A hole that is allowed: woken, the waiter finds nothing and faults anew.
            try expectEqual(
                uffd.raw(.move, destination.pages(2..<5), source: source.address(2), mode: 2), .done(3 * base),
                "MOVE with ALLOW_SRC_HOLES")
            try uffd.expectFault(at: destination.address(2), [])
            try expect(!PagemapEntry(of: destination.address(2)).isPresent, "the hole stays a hole")
            try expectPatterns(3..<5, at: destination.address(3), "pages behind the hole")
            try uffd.zeropage(destination.page(2))
            try touches[1].finish(with: 0)
            // Nothing but holes, also where no page table was ever made.
            let empty = try Area(context, pages: 2 * Area.hugePageCount, alignment: Area.hugePageBytes)
            try expectEqual(
                uffd.raw(.move, destination.pages(5..<8), source: empty.address(Area.hugePageCount - 1)),
                .failed(.noSuchFileOrDirectory), "MOVE of holes alone, not allowed")
            try expectEqual(
                uffd.raw(.move, destination.pages(5..<8), source: empty.address(0), mode: 2), .done(3 * base),
                "MOVE of holes alone")
            for page in 5..<8 {
                try expect(!PagemapEntry(of: destination.address(page)).isPresent, "page \(page) is missing")
            }
        },
        SelftestCase(
            "move-exists", on: [.anon],
            "whatever is at the destination ends MOVE there with EEXIST: a page, a swapped one, a zero page, a marker",
            requires: [.features([.move, .poison, .writeProtectUnpopulated])], covers: [.fillProgress, .moveErrors]
        ) { context in
            let source = try Area(context, pages: 6)
            let destination = try Area(context, pages: 6)
            let uffd = try destination.registered([.missing, .writeProtect], features: .writeProtectUnpopulated)
            let bytes = try destination.source(2..<3, seed: 9)
            let obstacles: [(String, () throws -> Void)] = [
                ("a page", { try uffd.copy(from: bytes, to: destination.page(2)) }),
                ("the zero page", { try uffd.zeropage(destination.page(2)) }),
                ("a write-protection marker", { try uffd.writeProtect(destination.page(2), .protect) }),
                ("a poison marker", { try uffd.poison(destination.page(2)) }),
            ]
            for (name, put) in obstacles {
                try source.zapView()
                source.fillView()
                try destination.zapView()
                try put()
                let before = try PagemapEntry(of: destination.address(2))
                let part = destination.pages(0..<5)
                try expectEqual(
                    uffd.raw(.move, part, source: source.address(1)), .partial(2 * PageSize.base.bytes),
                    "MOVE up to \(name)")
                try expectEqual(
                    uffd.raw(.move, destination.pages(2..<5), source: source.address(3)), .failed(.fileExists),
                    "MOVE onto \(name)")
                try expectPatterns(1..<3, at: destination.address(0), "pages before \(name)")
                try expectEqual(try PagemapEntry(of: destination.address(2)), before, "page table entry of \(name)")
                for page in [0, 3, 4, 5] { try source.expectView(page, "the source with \(name) in the way") }
                for page in 3..<5 {
                    try expect(!PagemapEntry(of: destination.address(page)).isPresent, "page \(page) stays missing")
                }
            }
        },
        SelftestCase(
            "move-exists-huge", on: [.anon],
            "a huge page at the destination ends MOVE with EEXIST",
            requires: [.features(.move), .transparentHugePages], covers: [.moveErrors, .hugePages]
        ) { context in
            let destination = try Area.transparentHuge(context, count: 1)
            let source = try Area.transparentHuge(context, count: 1)
            let uffd = try destination.registered(.missing)
            for count in [1, Area.hugePageCount] {
                try expectEqual(
                    uffd.raw(.move, destination.pages(0..<count), source: source.address(0)), .failed(.fileExists),
                    "MOVE of \(count) pages onto a huge page")
            }
            try expectPatterns(0..<source.pageCount, at: source.range.start, "the source")
            try expectPatterns(0..<source.pageCount, at: destination.range.start, "the destination")
        },
        SelftestCase(
            "move-special-source", on: [.anon],
            "a poisoned page or a write-protection marker in the source ends MOVE with EFAULT",
            requires: [.features([.move, .poison, .writeProtectUnpopulated])], covers: [.moveErrors]
        ) { context in
            let source = try Area(context, pages: 4)
            let destination = try Area(context, pages: 4)
            let uffd = try source.registered([.missing, .writeProtect], features: .writeProtectUnpopulated)
            try uffd.register(destination.range, modes: .missing)
            try uffd.poison(source.page(1))
            try uffd.writeProtect(source.page(2), .protect)
            for page in [1, 2] {
                for mode: UInt64 in [0, 2] {
                    try expectEqual(
                        uffd.raw(.move, destination.page(0), source: source.address(page), mode: mode),
                        .failed(.badAddress), "MOVE of a \(page == 1 ? "poison" : "write-protection") marker")
                }
            }
            try expect(!PagemapEntry(of: destination.address(0)).isPresent, "nothing is moved")
            try source.expectProtected([2], "after MOVE was refused")
            if case .signal(let fault) = Touch.load(source.address(1)) {
                try expectEqual(fault.signal, 7, "signal of the poisoned page")
            } else {
                throw CaseFailure(expected: "SIGBUS of the poisoned page", seen: "it can be read")
            }
        },
        SelftestCase(
            "move-shared-by-fork", on: [.anon],
            "a page that a child shares cannot be moved: EBUSY, until the child is gone and the page is written",
            requires: [.features(.move)], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let child = try Child([.pause, .load(source.address(1))])
            try child.waitPaused()
            // A page written since is the parent's alone again; the next is not.
            Pattern.write(seed: 0, page: 0, at: source.address(0), count: PageSize.base.bytes)
            try expectEqual(
                uffd.raw(.move, destination.pages(0..<3), source: source.address(0)), .partial(PageSize.base.bytes),
                "MOVE up to a page shared with the child")
            try expectEqual(
                uffd.raw(.move, destination.pages(1..<3), source: source.address(1)), .failed(.resourceBusy),
                "MOVE of a page shared with the child")
            try expect(!PagemapEntry(of: destination.address(1)).isPresent, "the shared page is not moved")
            for page in 1..<4 { try source.expectView(page) }
            try child.resume()
            try expectEqual(
                try child.finish()[1], Int64(Pattern.byte(page: 1)),
                "byte that the child reads")
            for page in 1..<3 {
                Pattern.write(seed: 4, page: page, at: source.address(page), count: PageSize.base.bytes)
            }
            try uffd.move(from: source.address(1), to: destination.pages(1..<3))
            try expectPatterns(1..<3, at: destination.address(1), seed: 4, "pages moved after the child has gone")
        },
        SelftestCase(
            "move-pinned", on: [.anon],
            "a pinned page cannot be moved: EBUSY, until the pin is given up",
            requires: [.features(.move)], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let pin = try Pin(source.page(1))
            try expectEqual(
                uffd.raw(.move, destination.pages(0..<3), source: source.address(0)), .partial(PageSize.base.bytes),
                "MOVE up to a pinned page")
            for mode: UInt64 in [0, 2] {
                try expectEqual(
                    uffd.raw(.move, destination.pages(1..<3), source: source.address(1), mode: mode),
                    .failed(.resourceBusy), "MOVE of a pinned page")
            }
            try expect(try PagemapEntry(of: source.address(1)).isPresent, "the pinned page stays")
            for page in 1..<4 { try source.expectView(page) }
            try pin.release()
            try uffd.move(from: source.address(1), to: destination.pages(1..<3))
            try expectPatterns(0..<3, at: destination.address(0), "pages moved without a pin")
        },
        SelftestCase(
            "move-pinned-huge", on: [.anon],
            "a pinned huge page cannot be moved, neither whole nor in part: EBUSY",
            requires: [.features(.move), .transparentHugePages], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.hugeSourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let pin = try Pin(source.page(3))
            try expectEqual(
                uffd.raw(.move, destination.range, source: source.range.start), .failed(.resourceBusy),
                "MOVE of a huge page that is pinned")
            try expectPatterns(0..<source.pageCount, at: source.range.start, "the pinned huge page")
            try expect(
                try PagemapEntry.entries(of: destination.range).allSatisfy { !$0.isPresent }, "nothing is moved")

            // In part it would have to be split, which the pin forbids. Kernels before 7.3.4 may try that again and again
            // instead of giving up, for as long as the pin lasts.
            let descriptor = Handler.Descriptor(uffd)
            let part = try BackgroundCall("mover") {
                descriptor.uffd.raw(.move, destination.page(3), source: source.address(3))
            }
            try? part.thread.join(within: Slowness.stretched(.seconds(1)))
            let isEndless = !part.isFinished
            try pin.release()
            let answer = try part.finish()
            try expect(
                !isEndless, "MOVE of the pinned part gives up", seen: "it spins until the pin is given up: \(answer)")
            try expectEqual(answer, .failed(.resourceBusy), "MOVE of the pinned part")
            try expectPatterns(0..<source.pageCount, at: source.range.start, "the pinned huge page")
            try expectEqual(
                descriptor.uffd.raw(.move, destination.page(3), source: source.address(3)),
                .done(PageSize.base.bytes), "MOVE of the part without the pin")
            try expectEqual(
                descriptor.uffd.raw(.move, destination.pages(4..<destination.pageCount), source: source.address(4)),
                .done((destination.pageCount - 4) * PageSize.base.bytes), "MOVE of the rest")
            try expectPatterns(4..<source.pageCount, at: destination.address(4), "the moved pages")
        },
        SelftestCase(
            "move-wakes", on: [.anon],
            "MOVE wakes those who wait for the pages moved, and nobody else; with DONTWAKE nobody until WAKE",
            requires: [.threads(10), .features(.move)], covers: [.waking]
        ) { context in
            let area = try Area(context, pages: 10)
            let source = try Area(context, pages: 4)
            let uffd = try UserfaultFD()
            source.fillView()
            try uffd.register(area.range, modes: .missing)
            // Pages 3 and 4 are moved; 2 and 5 lie beside them, and 8 is a source within the same mapping.
            let pages = [2, 3, 4, 5, 8]
            var touches: [Int: Touch] = [:]
            for page in pages {
                touches[page] = try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), [])
                try touches[page]!.thread.waitAsleep()
            }
            let base = PageSize.base.bytes
            try expectEqual(
                uffd.raw(.move, area.pages(3..<5), source: source.address(0), mode: 1), .done(2 * base),
                "MOVE with DONTWAKE")
            for page in pages { try touches[page]!.thread.expectStillAsleep("page \(page), DONTWAKE") }
            try uffd.wake(area.pages(6..<8))
            try uffd.expectWaiters(pending: 0, total: 5)
            try uffd.wake(area.page(3))
            try touches[3]!.finish(with: Pattern.byte(page: 0))
            for page in [2, 4, 5, 8] { try touches[page]!.thread.expectStillAsleep("page \(page), another was woken") }
            try uffd.wake(area.page(4))
            try touches[4]!.finish(with: Pattern.byte(page: 1))

            // A hole as the source, where somebody waits too: only the destination's waiter is woken, and faults anew.
            try expectEqual(
                uffd.raw(.move, area.page(2), source: area.address(8), mode: 2), .done(base), "MOVE of a hole")
            try uffd.expectFault(at: area.address(2), [])
            try touches[8]!.thread.expectStillAsleep("the source's waiters are not woken")
            // An error wakes nobody.
            try expectEqual(
                uffd.raw(.move, area.page(3), source: source.address(2)), .failed(.fileExists), "MOVE onto a page")
            for (page, from) in [(2, 2), (5, 3)] {
                try touches[page]!.thread.waitAsleep()
                try touches[page]!.thread.expectStillAsleep("page \(page), nothing was moved there")
                try expectEqual(uffd.raw(.move, area.page(page), source: source.address(from)), .done(base), "MOVE")
                try touches[page]!.finish(with: Pattern.byte(page: from))
            }
            try touches[8]!.thread.expectStillAsleep("its page was never moved to")
            try uffd.zeropage(area.page(8))
            try touches[8]!.finish(with: 0)
            try uffd.expectNoMessage("all is resolved")
        },
    ]
}
