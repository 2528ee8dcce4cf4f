import Glibc
import SystemPackage
import UserfaultFD

/// Pages that the hardware has lost, in registered memory: what is left of them is an entry that raises SIGBUS.
enum BrokenPageCases: CaseTheme {
    private static let requires: [Requirement] = [.missingFaults, .brokenPages]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "broken-page", on: .all,
            "a page that breaks raises SIGBUS with its size and makes no message; fills are refused, its neighbours stay",
            requires: requires, covers: [.brokenPages]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try area.registerFilled(uffd)
            try area.breakPage(1, context)
            try area.expectBroken(1, uffd, "after it broke")
            let source = try area.source(1..<2)
            for call in FillCall.allCases where uffd.supportedFeatures.contains(call.features) {
                let refusals: [Errno] =
                    switch call {
                    case .zeropage where area.memory.isHugetlb: [.invalidArgument]
                    // Whether it looks at the file's page or at the mapping first.
                    case .continue: area.memory == .anon ? [.invalidArgument] : [.ioError, .fileExists, .badAddress]
                    case .move: [.invalidArgument]
                    default: [.fileExists]
                    }
                guard call != .move || area.memory != .anon else { continue }
                let answer = uffd.raw(call, area.page(1), source: source.range.start)
                try expectOne(of: refusals.map { .failed($0) }, answer, "\(call) onto a broken page")
            }
            try area.expectBroken(1, uffd, "after fills were refused")
            for page in [0, 2, 3] { try area.expectView(page) }
        },
        SelftestCase(
            "broken-heals", on: .all,
            "MADV_DONTNEED makes a broken page of private memory missing, and a hole in the file one of shared memory",
            requires: requires, covers: [.brokenPages]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try area.registerFilled(uffd)
            try area.breakPage(1, context)
            try area.expectBroken(1, uffd, "before it is healed")
            do throws(UserfaultError) {
                try area.zapView(area.page(1))
            } catch {
                try expect(area.memory.isHugetlb && error.errno == .invalidArgument, "MADV_DONTNEED", seen: "\(error)")
                try context.skip(kernel: "this kernel does not drop pages of hugetlbfs (Linux 5.18)")
            }
            if !area.memory.isPrivate {
                let touch = try Touch.read(area.address(1))
                try Waiting.until("an access after MADV_DONTNEED ends, or is a fault") {
                    try touch.isFinished || uffd.poll(timeout: .zero)
                }
                let isKept = touch.isFinished
                context.record("a broken page \(isKept ? "stays" : "does not stay") in the file")
                if isKept { try expectEqual(touch.finish().signal, SIGBUS, "signal from the file's broken page") }
                try area.punchHole(1..<2)
                if !isKept {
                    try uffd.expectFault(at: area.address(1), [])
                    try uffd.copy(from: area.source(1..<2), to: area.page(1))
                    try touch.finish(with: Pattern.byte(page: 1))
                    return
                }
            }
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), [])
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            try touch.finish(with: Pattern.byte(page: 1))
            for page in 0..<4 { try area.expectView(page, "after it was healed") }
        },
        SelftestCase(
            "broken-continue", on: .pageCache,
            "CONTINUE of a page that broke in the file answers EIO and wakes nobody; POISON hands the SIGBUS on",
            requires: [.minorFaults, .features(.poison), .brokenPages], covers: [.brokenPages]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.minor)
            try area.fillFile()
            let size = area.pageSize.bytes
            try BrokenPages.breakMemory(AddressRange(start: area.aliasAddress(1), count: size), context)
            let touch = try Touch.read(area.address(1))
            try Waiting.until("an access to the file's broken page ends, or is a fault") {
                try touch.isFinished || uffd.poll(timeout: .zero)
            }
            let isFault = !touch.isFinished
            context.record("the file's broken page is \(isFault ? "a minor fault" : "an error at once")")
            if isFault { try uffd.expectFault(at: area.address(1), .minor) }
            for _ in 0..<2 {
                try expectEqual(uffd.raw(.continue, area.page(1)), .failed(.ioError), "CONTINUE of a broken page")
            }
            if isFault { try touch.expectStillWaiting(uffd, "CONTINUE was refused") }
            try expectEqual(uffd.raw(.continue, area.range), .partial(size), "CONTINUE up to the broken page")
            try expectEqual(uffd.raw(.poison, area.page(1)), .done(size), "POISON in its place")
            try expectEqual(touch.finish().signal, SIGBUS, "signal that POISON hands on")
            try area.expectBroken(1, uffd, "where it was poisoned")
            try uffd.raw(.continue, area.pages(2..<4)).expectDone(2 * size)
            for page in [0, 2, 3] { try area.expectView(page) }
        },
        SelftestCase(
            "broken-source", on: [.anon, .shmem, .hugetlb],
            "COPY from memory that broke answers EFAULT, fills nothing and wakes nobody; COPY from elsewhere goes on",
            requires: requires, covers: [.brokenPages, .copySources]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let size = area.pageSize.bytes
            let source = try area.source(0..<3)
            let broken = source.range.part(at: size, count: PageSize.base.bytes)
            try BrokenPages.breakMemory(broken, context)
            let waiter = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), [])
            try waiter.thread.waitAsleep()
            try expectEqual(
                uffd.raw(.copy, area.pages(0..<3), source: source.range.start), .partial(size),
                "COPY up to broken memory")
            for _ in 0..<2 {
                try expectEqual(
                    uffd.raw(.copy, area.page(1), source: broken.start), .failed(.badAddress), "COPY from broken memory"
                )
            }
            try waiter.expectStillWaiting(uffd, "nothing was filled")
            try area.expectUnmapped(1..<4, "COPY was refused")
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            try waiter.finish(with: Pattern.byte(page: 1))
            try uffd.raw(.copy, area.page(2), source: source.range.start + UInt(2 * size)).expectDone(size)
            for page in 0..<3 { try area.expectView(page) }
        },
        SelftestCase(
            "broken-move", on: [.anon],
            "MOVE stops at a broken page with EFAULT, and onto one with EEXIST",
            requires: requires + [.features(.move)], covers: [.brokenPages, .moveErrors]
        ) { context in
            let (source, destination) = (try Area(context), try Area(context))
            let uffd = try UserfaultFD()
            try source.registerFilled(uffd)
            try uffd.register(destination.range, modes: .missing)
            let size = source.pageSize.bytes
            try source.breakPage(1, context)
            try expectEqual(
                uffd.raw(.move, destination.range, source: source.address(0)), .partial(size),
                "MOVE up to the broken page")
            // With ALLOW_SRC_HOLES too: it is no hole.
            for mode: UInt64 in [0, 2] {
                try expectEqual(
                    uffd.raw(.move, destination.page(1), source: source.address(1), mode: mode), .failed(.badAddress),
                    "MOVE of a broken page, mode \(mode)")
            }
            try destination.expectUnmapped(1..<4, "MOVE was refused")
            try expectEqual(
                uffd.raw(.move, source.page(1), source: source.address(2)), .failed(.fileExists),
                "MOVE onto a broken page")
            try source.expectBroken(1, uffd, "that was not moved")
            try uffd.raw(.move, destination.pages(2..<4), source: source.address(2)).expectDone(2 * size)
            for page in [0, 2, 3] { try destination.expectView(page, "moved") }
        },
        SelftestCase(
            "broken-protected", on: .all,
            "WRITEPROTECT and PAGEMAP_SCAN pass over a broken page; a child gets the SIGBUS too, and no protection",
            requires: [.writeProtectFaults, .pagemapProtection, .brokenPages],
            covers: [.brokenPages, .protectionSurvives]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.breakPage(1, context)
            try area.expectBroken(1, uffd, "that was protected")
            for page in [0, 2, 3] { try area.expectMapped(page..<page + 1, isProtected: true) }
            // Of shared memory, a child has no page table yet.
            let child = try Child([.load(area.address(1)), .pagemap(area.address(1)), .pagemap(area.address(2))])
            let seen = try child.finish()
            try expectEqual(seen[0], Int64(-SIGBUS), "what a child reads of the broken page")
            for entry in seen[1...].map({ PagemapEntry(rawValue: UInt64(bitPattern: $0)) }) {
                try expect(!entry.isProtected, "a child's page, which nothing protects", seen: "\(entry)")
            }
            try uffd.writeProtect(area.range, .protect)
            if uffd.supportedFeatures.contains(.writeProtectAsync) {
                let regions = try PagemapScan().scan(area.range, for: .init(all: .present, reported: .present)).regions
                let found = regions.map(\.range)
                try expectOne(
                    of: [[area.page(0), area.pages(2..<4)], [area.range]], found,
                    "pages that PAGEMAP_SCAN finds present")
                context.record("PAGEMAP_SCAN finds the broken page present: \(found.count == 1)")
            }
            try uffd.writeProtect(area.range, .unprotect)
            try area.expectBroken(1, uffd, "that was unprotected")
            for page in [0, 2, 3] { try area.expectMapped(page..<page + 1, isProtected: false) }
            for page in [0, 2, 3] {
                try area.expectView(page)
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write to page \(page)")
            }
            try uffd.expectNoMessage("nothing is protected")
        },
        SelftestCase(
            "broken-offline", on: .all,
            "a page that is taken out of use before it breaks keeps its contents, protection and registration",
            requires: [.writeProtectFaults, .pageFrames, .brokenPages], covers: [.brokenPages, .protectionSurvives]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.pages(0..<2), .protect)
            let frames = try (1..<3).map { try PageFrame(of: area.address($0)).number }
            for page in 1..<3 {
                try BrokenPages.note(area.page(page))
                let answer = RawMemory.advise(area.page(page), Advice(rawValue: 101))  // MADV_SOFT_OFFLINE
                guard answer != -EBUSY, answer != -EAGAIN else {
                    try context.skip(thisTime: "the kernel could not take a page out of use")
                }
                try expectEqual(answer, 0, "answer of MADV_SOFT_OFFLINE")
            }
            for page in 0..<4 { try area.expectView(page, "after two were taken out of use") }
            try area.expectProtected([0, 1], "after two were taken out of use")
            for (page, frame) in zip(1..<3, frames) {
                try expect(
                    PageFrame(of: area.address(page)).number != frame, "page \(page) is another frame", seen: "\(frame)"
                )
            }
            let touch = try Touch.write(area.address(1), 7)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 7)
            try expectEqual(Touch.store(area.address(2), 7), .byte(7), "a write beside it")
        },
    ]
}
