import Glibc
import SystemPackage
import UserfaultFD

/// What kind of page UFFDIO_COPY makes, and when others see it.
enum CopyModelCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-write-first", on: .all,
            "a write to a missing page makes one message with WRITE, and lands in what the fill puts there",
            requires: [.missingFaults], covers: [.privateCopy]
        ) { context in
            for call in try FillCall.working(on: context.memory) where call != .poison {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let area = trial.area
                let touch = try Touch.write(area.address(1), 0xEE)
                try trial.uffd.expectFault(at: area.address(1), trial.faultFlags(isWrite: true))
                try touch.thread.waitAsleep()
                try expectEqual(trial.fill(1..<2), trial.done(1), "\(call)")
                try touch.finish(with: 0xEE)
                try trial.uffd.expectNoMessage("one write makes one message")
                try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written")
                let second = call == .zeropage ? 0 : Pattern.word(seed: FillTrial.seed, page: 1, index: 1)
                try expectEqual(
                    UnsafePointer<UInt64>(bitPattern: area.address(1))![1], second, "the word behind the byte written")
                try area.expectUnmapped(0..<1)
                try area.expectUnmapped(2..<4)
                guard area.file != nil else { continue }
                let kept = call == .continue ? Pattern.byte(seed: FillTrial.seed, page: 1) : 0
                try expectEqual(area.readFile(1)[0], context.memory.isPrivate ? kept : 0xEE, "the byte in the file")
            }
        },
        SelftestCase(
            "copy-writable", on: .all,
            "what COPY and CONTINUE put into writable memory is written without another fault, where no copy is due",
            requires: [.missingFaults], covers: [.privateCopy]
        ) { context in
            for call in try FillCall.working(on: context.memory) where call == .copy || call == .continue {
                if call == .continue && context.memory.isPrivate { continue }
                let trial = try FillTrial(call, context, pages: context.memory.isHugetlb ? 4 : 64)
                defer { trial.end() }
                let count = trial.area.pageCount
                try expectEqual(trial.fill(0..<count), trial.done(count), "\(call)")
                // What comes in when it is used first is this program's own.
                for _ in 0..<3 { _ = Self.faults() }
                Touch.store(trial.area.address(0), 1)
                let before = Self.faults()
                for page in 1..<count { Touch.store(trial.area.address(page), 1) }
                let more = Self.faults() - before
                try expect(more < count / 2, "\(count - 1) writes after \(call) make no faults", seen: "\(more) faults")
            }
        },
        SelftestCase(
            "copy-atomic", on: .all,
            "a page that COPY brings is seen whole or not at all, by its readers and in the file",
            requires: [.missingFaults, .features(.sigbus)], limit: .seconds(30), covers: [.atomicity]
        ) { context in
            let count = context.memory.isHugetlb ? 4 : 128
            let area = try Area(context, pages: count, offset: 1)
            // With signals instead of messages a reader that finds nothing is back in no time, and meets COPY at its work.
            let uffd = try area.registered(.missing, features: .sigbus)
            let source = try area.source(0..<count)
            let readers = try (0..<2).map { _ in
                try BackgroundCall {
                    for page in 0..<count {
                        // A byte of the last word, which every page's pattern has.
                        let last = area.address(page) + UInt(area.pageSize.bytes) - 8 + 3
                        var seen = Touch.load(last)
                        while seen.signal != nil { seen = Touch.load(last) }
                        try expectEqual(seen, .byte(0x80), "a byte at the end of page \(page)")
                        try area.expectView(page)
                    }
                }
            }
            let watcher = try BackgroundCall {
                guard area.file != nil && !context.memory.isPrivate else { return }
                for page in 0..<count {
                    while true {
                        let bytes = try area.readFile(page)
                        if bytes[bytes.count - 8..<bytes.count].allSatisfy({ $0 == 0 }) {
                            NativeThread.yield()
                            continue
                        }
                        try area.expectStored(page)
                        break
                    }
                }
            }
            for page in 0..<count {
                let start = source.range.start + UInt(page * area.pageSize.bytes)
                try uffd.raw(.copy, area.page(page), source: start).expectDone(area.pageSize.bytes)
                // The readers are at the next page when it comes.
                for _ in 0..<4 { NativeThread.yield() }
            }
            for reader in readers { try reader.finish("the readers have seen every page") }
            try watcher.finish("the file has every page")
        },
        SelftestCase(
            "copy-exclusive", on: [.anon],
            "an anonymous page that COPY has made belongs to the process alone: it can be moved on",
            requires: [.missingFaults, .features(.move)], covers: [.privateCopy]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<2)
            try uffd.raw(.copy, area.pages(0..<2), source: source.range.start).expectDone(2 * area.pageSize.bytes)
            try uffd.raw(.move, area.pages(2..<4), source: area.address(0)).expectDone(2 * area.pageSize.bytes)
            for page in 2..<4 {
                try Pattern.expect(
                    seed: 0, page: page - 2, at: area.address(page), count: area.pageSize.bytes, "the page moved")
            }
            try area.expectUnmapped(0..<2, "it was moved away")
        },
        SelftestCase(
            "copy-swapped", on: .smallPages,
            "pages that COPY has made can be swapped out like any other, and come back whole",
            requires: [.missingFaults, .swap], limit: .seconds(30), covers: [.privateCopy, .continueDirty]
        ) { context in
            // That such memory can be swapped out at all is seen of pages that an access has made.
            let ordinary = try Area(context)
            for page in 0..<4 {
                Pattern.write(seed: 1, page: page, at: ordinary.address(page), count: ordinary.pageSize.bytes)
            }
            try ordinary.swapOut(0..<4)
            let trial = try FillTrial(.copy, context)
            try expectEqual(trial.fill(0..<4), trial.done(4), "COPY")
            try trial.area.swapOut(0..<4, isProven: true)
            for page in 0..<4 { try trial.area.expectView(page, seed: FillTrial.seed) }
            try trial.uffd.expectNoMessage("a page that is swapped out is not missing")
        },
        SelftestCase(
            "copy-private-fork", on: .pageCache.filter(\.isPrivate),
            "what COPY makes on a private mapping is copied on write after fork, and the file knows nothing of it",
            requires: [.missingFaults], covers: [.privateCopy, .continueResident]
        ) { context in
            let trial = try FillTrial(.copy, context)
            let area = trial.area
            try expectEqual(trial.fill(0..<3), trial.done(3), "COPY")
            let child = try Child([
                .load(area.address(1)), .store(area.address(1), 0xC1), .load(area.address(1)), .pause,
                .load(area.address(2)),
            ])
            try child.waitPaused()
            try area.expectView(1, seed: FillTrial.seed)
            try expectEqual(Touch.store(area.address(2), 0xEE), .byte(0xEE), "a write of the parent")
            try child.resume()
            let bytes = (1..<3).map { Int64(Pattern.byte(seed: FillTrial.seed, page: $0)) }
            try expectEqual(child.finish(), [bytes[0], 0, 0xC1, 0, bytes[1]], "what the child saw")
            for page in 0..<4 { try area.expectStoredZeros(page) }
            try expectEqual(area.blocks(), 0, "st_blocks of the file")
        },
    ]

    /// How many faults this thread has had that needed no reading.
    private static func faults() -> Int {
        let fields = ProcFile.line("/proc/thread-self/stat")?.split(separator: ")").last?.split(separator: " ")
        return fields.flatMap { Int($0[7]) } ?? 0
    }
}
