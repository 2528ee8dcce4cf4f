import Glibc
import SystemPackage
import UserfaultFD

/// What COPY, ZEROPAGE, CONTINUE and POISON have in common when they fill: how far they come, and whom they wake.
enum FillCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-range", on: .all,
            "a fill fills every page of its range and none beside it, and says how many bytes",
            requires: [.descriptors(40), .missingFaults], covers: [.continueResolves]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                for pages in [0..<1, 1..<3, 3..<4] {
                    let trial = try FillTrial(call, context)
                    defer { trial.end() }
                    let blocks = try trial.area.blocks()
                    try expectEqual(trial.fill(pages), trial.done(pages.count), "\(call) of pages \(pages)")
                    try trial.area.expectUnmapped(0..<pages.lowerBound, "\(call) was not asked for it")
                    try trial.area.expectUnmapped(pages.upperBound..<4, "\(call) was not asked for it")
                    if call != .poison {
                        // A private page is the view's own; everything else is the file's.
                        let isFile = context.memory.isPrivate ? call == .continue : true
                        let isZeroPage = call == .zeropage && context.memory.isPrivate
                        try trial.area.expectMapped(pages, isFile: isZeroPage ? nil : isFile)
                    }
                    try trial.expectFilled(pages)
                    let isNewInFile = !context.memory.isPrivate && (call == .copy || call == .zeropage)
                    try expectEqual(
                        trial.area.blocks(), blocks + (isNewInFile ? pages.count * trial.area.pageSize.bytes / 512 : 0),
                        "st_blocks after \(call) of \(pages.count) pages")
                    if isNewInFile {
                        for page in pages {
                            if call == .copy { try trial.area.expectStored(page, seed: FillTrial.seed) }
                            if call == .zeropage { try trial.area.expectStoredZeros(page) }
                            try expectEqual(
                                Touch.load(trial.area.aliasAddress(page)), Touch.load(trial.area.address(page)),
                                "the first byte of page \(page), in the alias")
                        }
                    }
                    try trial.uffd.expectNoMessage("every page touched was filled")
                }
            }
        },
        SelftestCase(
            "fill-wakes", on: .all,
            "a fill wakes every waiter of its range, of all its pages, and no waiter beside it",
            requires: [.threads(10), .missingFaults], covers: [.waking, .manyWaiters]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let first = try trial.blockedReader(0)
                let inside = try [1, 1, 1, 2].map { try trial.blockedReader($0) }
                let last = try trial.blockedReader(3)
                try trial.uffd.expectWaiters(pending: 0, total: 6)
                // One more, whose message nobody has read.
                let unread = try Touch.read(trial.area.address(2))
                try trial.uffd.waitBlocked(7)
                try unread.thread.waitAsleep()
                try expectEqual(trial.fill(1..<3), trial.done(2), "\(call) of pages 1 and 2")
                try trial.finish(unread, page: 2)
                for (touch, page) in zip(inside, [1, 1, 1, 2]) { try trial.finish(touch, page: page) }
                try first.thread.expectStillAsleep("its page lies before the range")
                try last.thread.expectStillAsleep("its page lies behind the range")
                try trial.uffd.expectWaiters(pending: 0, total: 2)
                try expectEqual(trial.fill(0..<1), trial.done(1), "\(call) of page 0")
                try trial.finish(first, page: 0)
                try last.thread.expectStillAsleep("its page lies behind the range")
                try expectEqual(trial.fill(3..<4), trial.done(1), "\(call) of page 3")
                try trial.finish(last, page: 3)
                try trial.uffd.expectNoMessage("nobody found its page missing again")
            }
        },
        SelftestCase(
            "fill-dontwake", on: .all,
            "a fill with DONTWAKE wakes nobody, nor does one refused with EEXIST; UFFDIO_WAKE of the page does",
            requires: [.missingFaults], covers: [.continueWithoutWake, .waking]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let touches = try [1, 1, 2].map { try trial.blockedReader($0) }
                func allAsleep(_ why: String, _ trial: FillTrial) throws {
                    for touch in touches { try touch.thread.expectStillAsleep(why) }
                    try trial.uffd.expectWaiters(pending: 0, total: 3, why)
                }
                try expectEqual(trial.fill(1..<3, mode: 1), trial.done(2), "\(call) with DONTWAKE")
                try allAsleep("\(call) was told not to wake", trial)
                try expectEqual(trial.fill(1..<2), .failed(.fileExists), "\(call) repeated")
                try expectEqual(trial.fill(1..<2, mode: 1), .failed(.fileExists), "\(call) repeated with DONTWAKE")
                try allAsleep("a refused \(call) wakes nobody", trial)
                try trial.uffd.wake(trial.area.page(0))
                try trial.uffd.wake(trial.area.page(3))
                try allAsleep("the pages beside its own were woken", trial)
                try trial.uffd.wake(trial.area.page(1))
                for touch in touches[..<2] { try trial.finish(touch, page: 1) }
                try touches[2].thread.expectStillAsleep("another page was woken")
                try trial.uffd.wake(trial.area.range)
                try trial.finish(touches[2], page: 2)
                try trial.uffd.expectNoMessage("the pages were filled")
                try trial.expectFilled(1..<3)
            }
        },
        SelftestCase(
            "fill-partial", on: .all,
            "a fill that meets a page on its way says how far it came, and wakes the waiters of that part alone",
            requires: [.descriptors(40), .missingFaults], covers: [.fillProgress]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                for wakes in [true, false] { try partialFill(context, call, wakes: wakes) }
            }
        },
        SelftestCase(
            "fill-any-mode", on: .all,
            "a fill asks for registered memory, whatever the modes it is registered with",
            requires: [.descriptors(40), .missingFaults], covers: [.foreignDescriptors]
        ) { context in
            let features = try UserfaultFD().supportedFeatures
            for call in try FillCall.working(on: context.memory) {
                for modes in [.missing, .minor, .writeProtect, [.missing, .minor]] as [UserfaultFD.RegisterModes]
                where modes.areLawful(on: context.memory, features) {
                    let trial = try FillTrial(call, context, modes: modes)
                    defer { trial.end() }
                    try expectEqual(trial.fill(1..<3), trial.done(2), "\(call) of memory registered for \(modes)")
                    try trial.expectFilled(1..<3)
                    try trial.area.expectUnmapped(0..<1)
                    try trial.area.expectUnmapped(3..<4)
                }
            }
        },
        SelftestCase(
            "fill-write-protected", on: .all,
            "COPY and CONTINUE with MODE_WP protect every page that they fill; the first write is a fault",
            requires: [.missingFaults, .writeProtectFaults], covers: [.continueProtected, .minorProtection]
        ) { context in
            let calls: [FillCall] = [.copy, .continue]
            for call in try FillCall.working(on: context.memory) where calls.contains(call) {
                let modes: UserfaultFD.RegisterModes =
                    call == .continue ? [.minor, .writeProtect] : [.missing, .writeProtect]
                let trial = try FillTrial(call, context, modes: modes)
                defer { trial.end() }
                let area = trial.area
                let answer = trial.fill(0..<3, mode: 1 << 1)
                if call == .continue && answer == .refused(.invalidArgument) {
                    context.record("CONTINUE cannot write-protect on this kernel")
                    continue
                }
                try expectEqual(answer, trial.done(3), "\(call) with MODE_WP")
                try area.expectMapped(0..<3, isProtected: true)
                try area.expectUnmapped(3..<4)
                for page in 0..<3 {
                    try area.expectView(page, seed: FillTrial.seed, "a protected page can be read")
                    let touch = try Touch.write(area.address(page), 0xEE)
                    try trial.uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                    try touch.thread.waitAsleep()
                    try area.expectView(page, seed: FillTrial.seed, "nothing was written yet")
                    try expectEqual(trial.fill(page..<page + 1), .failed(.fileExists), "\(call) of a protected page")
                    try touch.thread.expectStillAsleep("a refused \(call) wakes nobody")
                    try trial.uffd.writeProtect(area.page(page), .unprotect)
                    try touch.finish(with: 0xEE)
                    try expectEqual(Touch.load(area.address(page)), .byte(0xEE), "the byte written, in the view")
                    try area.expectMapped(page..<page + 1)
                    if page < 2 { try area.expectMapped(page + 1..<3, isProtected: true) }
                    guard area.file != nil else { continue }
                    if !context.memory.isPrivate {
                        try expectEqual(area.readFile(page)[0], 0xEE, "the byte written, in the file")
                    } else if call == .continue {
                        try area.expectStored(page, seed: FillTrial.seed)
                    }
                }
                // Without MODE_WP memory registered so is filled unprotected.
                try expectEqual(trial.fill(3..<4), trial.done(1), "\(call) without MODE_WP")
                try area.expectMapped(3..<4)
                try expectEqual(Touch.store(area.address(3), 0xDD), .byte(0xDD), "a write to page 3")
                try trial.uffd.expectNoMessage("an unprotected page is written without fault")
            }
        },
        SelftestCase(
            "fill-read-only", on: .all,
            "memory that may not be written, or not even read, can be filled, and stays what it is",
            requires: [.missingFaults], covers: [.unwritableMemory, .continueDirty]
        ) { context in
            for call in try FillCall.working(on: context.memory) where call != .poison {
                for protection in [.read, .none] as [MemoryProtection] {
                    let trial = try FillTrial(call, context)
                    defer { trial.end() }
                    try trial.area.view.protect(protection)
                    try expectEqual(trial.fill(1..<3), trial.done(2), "\(call)")
                    try trial.area.expectMapped(1..<3)
                    if protection == .read { try trial.expectFilled(1..<3) }
                    try expectEqual(
                        Touch.store(trial.area.address(1), 0xEE).signal, SIGSEGV,
                        "signal from a write to memory that may not be written")
                    let dirty = try MappingAccount(holding: trial.area.range.start)
                    if !context.memory.isHugetlb && !(call == .zeropage && context.memory.isPrivate) {
                        try expectEqual(
                            dirty["Shared_Dirty"] + dirty["Private_Dirty"], 2 * trial.area.pageSize.bytes / 1024,
                            "dirty pages of the view in smaps after \(call), KiB")
                    }
                    // Once it may be written, a private mapping still copies, and a shared one still writes to the file.
                    try trial.area.view.protect(.readWrite)
                    try trial.expectFilled(1..<3)
                    try expectEqual(Touch.store(trial.area.address(1), 0xEE), .byte(0xEE), "a write once it is allowed")
                    try trial.uffd.expectNoMessage("every page touched was filled")
                    guard trial.area.file != nil else { continue }
                    if !context.memory.isPrivate {
                        try expectEqual(trial.area.readFile(1)[0], 0xEE, "the byte written, in the file")
                    } else if call == .continue {
                        try trial.area.expectStored(1, seed: FillTrial.seed)
                    }
                }
            }
        },
    ]

    /// Fills four pages of which the third is there already.
    private static func partialFill(_ context: CaseContext, _ call: FillCall, wakes: Bool) throws {
        let trial = try FillTrial(call, context)
        defer { trial.end() }
        let area = trial.area
        let obstacle = try area.source(2..<3, seed: 3)
        if call == .continue { try area.fillFile(2, seed: 3) }
        let first: FillCall = call == .continue ? .continue : .copy
        try expectEqual(
            trial.uffd.raw(first, area.page(2), source: obstacle.range.start), trial.done(1), "the obstacle")
        let hasFilePage = call == .continue || !area.memory.isPrivate
        var before = try PageState(area, page: 2, aliasIsMapped: hasFilePage)
        let touches = try [0, 1, 3].map { try trial.blockedReader($0) }

        try expectEqual(
            trial.fill(0..<4, mode: wakes ? 0 : 1), .partial(2 * area.pageSize.bytes), "\(call) up to page 2")
        before.blocks = try area.blocks()
        if !wakes {
            for touch in touches { try touch.thread.expectStillAsleep("\(call) was told not to wake") }
            try trial.uffd.expectWaiters(pending: 0, total: 3)
            try trial.uffd.wake(area.pages(0..<2))
        }
        for page in 0..<2 { try trial.finish(touches[page], page: page) }
        try touches[2].thread.expectStillAsleep("\(call) did not come so far")
        try trial.uffd.expectWaiters(pending: 0, total: 1)
        try trial.expectFilled(0..<2)
        try area.expectUnmapped(3..<4, "\(call) did not come so far")
        for pages in [2..<4, 2..<3] {
            try expectEqual(trial.fill(pages), .failed(.fileExists), "\(call) of pages \(pages)")
        }
        try PageState(area, page: 2, aliasIsMapped: hasFilePage)
            .expectUnchanged(since: before, by: "the \(call)s that met it")
        try touches[2].thread.expectStillAsleep("a refused \(call) wakes nobody")
        try expectEqual(trial.fill(3..<4), trial.done(1), "\(call) of the page behind")
        try trial.finish(touches[2], page: 3)
        try trial.uffd.expectNoMessage("every fault was resolved")
    }
}
