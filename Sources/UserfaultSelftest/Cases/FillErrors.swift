import SystemPackage
import UserfaultFD

/// What COPY, ZEROPAGE, CONTINUE and POISON refuse: errno, output word, and that nothing else happens.
enum FillErrorsCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-validation", on: .all,
            "a fill with a bad range or mode answers EINVAL before its output word is written, and does nothing",
            requires: [.missingFaults], covers: [.arguments]
        ) { context in
            for call in try FillCall.offered() {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let touch = try trial.blockedReader(1)
                let start = trial.area.address(1)
                let page = trial.area.pageSize.bytes
                let half = PageSize.base.bytes / 2
                let last = UInt.max - UInt(page) + 1
                let ranges: [(String, UInt, Int)] = [
                    ("an unaligned start", start + 1, page),
                    ("a start in the middle of a page", start + UInt(half), page),
                    ("no length", start, 0), ("a length of 1", start, 1), ("half a base page", start, half),
                    ("a page and a byte", start, page + 1), ("a length that wraps", start, -page),
                    ("a length past all user memory", start, 1 << 62), ("a start past it", BadPointer.kernelHalf, page),
                    ("the last page there is", last, page), ("a range that wraps", last, 2 * page),
                ]
                for (what, start, count) in ranges {
                    try expectEqual(
                        trial.fill(start: start, count: count), .refused(.invalidArgument), "\(call) with \(what)")
                }
                // Bit 1 is the write-protecting mode of COPY and CONTINUE.
                let unknown: [UInt64] = [1 << 2, 1 << 3, 1 << 31, 1 << 32, 1 << 63, 1 << 2 | 1]
                for mode in call == .zeropage || call == .poison ? [1 << 1] + unknown : unknown {
                    try expectEqual(
                        trial.fill(1..<2, mode: mode), .refused(.invalidArgument),
                        "\(call) with the mode \(String(mode, radix: 2))")
                }
                if call == .copy { try refusedSources(trial) }
                try touch.thread.expectStillAsleep("a refused \(call) wakes nobody")
                try trial.area.expectUnmapped(0..<4, "\(call) was refused")
                try trial.uffd.expectWaiters(pending: 0, total: 1)
            }
        },
        SelftestCase(
            "fill-argument", on: .all,
            "a fill whose argument cannot be read does nothing; one whose output word cannot be written has filled",
            requires: [.missingFaults], covers: [.arguments]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let touch = try trial.blockedReader(1)
                // Two pages: the argument's output word, its last 8 bytes, is the first of the second page.
                let pages = try Mapping(anonymous: 2 * PageSize.base.bytes)
                let size = call == .copy ? 40 : 32
                let argument = pages.page(1).start + 8 - UInt(size)
                let source = try trial.area.source(1..<2, seed: FillTrial.seed)
                let words = UnsafeMutablePointer<UInt64>(bitPattern: argument)!
                let range = [UInt64(trial.area.address(1)), UInt64(trial.area.pageSize.bytes)]
                let input =
                    call == .copy ? [range[0], UInt64(source.range.start), range[1], 0] : [range[0], range[1], 0]
                for (index, word) in input.enumerated() { words[index] = word }

                try pages.protect(.none, pages.page(0))
                try expectEqual(
                    trial.uffd.rawIoctl(call.request, words), Errno.badAddress.rawValue,
                    "errno of \(call) whose argument cannot be read")
                try expectEqual(
                    trial.uffd.rawIoctl(call.request, nil), Errno.badAddress.rawValue,
                    "errno of \(call) without argument")
                try trial.area.expectUnmapped(0..<4, "\(call) was refused")
                try touch.thread.expectStillAsleep("a refused \(call) wakes nobody")

                // The last bytes of the argument are only written to.
                try pages.protect(.readWrite, pages.page(0))
                try pages.protect(.read, pages.page(1))
                try expectEqual(
                    trial.uffd.rawIoctl(call.request, words), Errno.badAddress.rawValue,
                    "errno of \(call) whose output word cannot be written")
                try touch.thread.expectStillAsleep("\(call) that could not answer wakes nobody")
                try expectEqual(trial.fill(1..<2), .failed(.fileExists), "\(call) after the one that could not answer")
                try trial.uffd.wake(trial.area.page(1))
                try trial.finish(touch, page: 1)
                try trial.expectFilled(1..<2)
                try trial.uffd.expectNoMessage("the page was filled")
            }
        },
        SelftestCase(
            "fill-not-registered", on: .all,
            "a fill that is not wholly inside one registered mapping answers ENOENT and fills no page of it",
            requires: [.missingFaults], covers: [.rangeLimits, .continueErrors]
        ) { context in
            for call in try FillCall.offered() {
                let trial = try FillTrial(call, context, pages: 5, modes: .missing)
                defer { trial.end() }
                let area = trial.area
                let blocks = try area.blocks()
                func refuses(_ what: String, start: UInt, _ pages: Int, _ trial: FillTrial) throws {
                    try expectEqual(
                        trial.fill(start: start, pages), .failed(.noSuchFileOrDirectory), "\(call) of \(what)")
                    try area.expectUnmapped(0..<5, "\(call) was refused")
                    try expectEqual(area.blocks(), blocks, "st_blocks after the refused \(call)")
                }
                let end = area.address(4)
                try refuses("a range that leaves its mapping", start: end, 2, trial)
                try refuses("a range that starts before its mapping", start: area.address(0) - area.stride, 2, trial)
                try refuses("memory that was never registered", start: area.address(0) - area.stride, 1, trial)

                try area.view.protect(.read, area.pages(3..<5))
                try refuses("a range over two registered mappings", start: area.address(2), 2, trial)
                try area.view.protect(.readWrite, area.pages(3..<5))

                try trial.uffd.unregister(area.pages(2..<5))
                try refuses("memory that is not registered any more", start: area.address(2), 1, trial)
                try refuses("a range whose end is not registered", start: area.address(1), 2, trial)
                try refuses("a range whose start is not registered", start: area.address(2), 3, trial)
                try AddressSpace.unmap(area.page(4))
                try expectEqual(
                    trial.fill(start: end, 1), .failed(.noSuchFileOrDirectory), "\(call) of memory that is not mapped")
                try trial.uffd.expectNoMessage()
                if call.works(on: context.memory) {
                    try expectEqual(trial.fill(0..<2), trial.done(2), "\(call) of what is still registered")
                    try trial.expectFilled(0..<2)
                }
            }
        },
        SelftestCase(
            "fill-wrong-memory", on: .all,
            "CONTINUE on anonymous memory, ZEROPAGE on huge pages and parts of huge pages answer EINVAL",
            requires: [.missingFaults], covers: [.continueErrors, .arguments]
        ) { context in
            let memory = context.memory
            for call in try FillCall.offered() {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let blocks = try trial.area.blocks()
                let base = PageSize.base.bytes
                let page = trial.area.address(1)
                var refused: [(String, UInt, Int)] = []
                if !call.works(on: memory) { refused.append(("", page, trial.area.pageSize.bytes)) }
                if memory.isHugetlb {
                    refused += [
                        ("of the start of a huge page", page, base), ("inside of a huge page", page + UInt(base), base),
                        ("over two parts of huge pages", page + UInt(base), trial.area.pageSize.bytes),
                        ("of a huge page and a bit", page, trial.area.pageSize.bytes + base),
                    ]
                }
                let source = try trial.area.source(0..<2)
                for (what, start, count) in refused {
                    let answer = trial.uffd.raw(call, start: start, count: count, source: source.range.start)
                    try expectEqual(answer, .failed(.invalidArgument), "\(call) \(what) on \(memory)")
                }
                try trial.area.expectUnmapped(0..<4, "\(call) was refused")
                try expectEqual(trial.area.blocks(), blocks, "st_blocks after the refused \(call)")
            }
        },
        SelftestCase(
            "fill-write-protect-unregistered", on: .all,
            "COPY and CONTINUE that should write-protect memory not registered so answer EINVAL and fill nothing",
            requires: [.missingFaults, .features(.writeProtect)], covers: [.continueProtected]
        ) { context in
            let calls: [FillCall] = [.copy, .continue]
            for call in try FillCall.working(on: context.memory) where calls.contains(call) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let touch = try trial.blockedReader(1)
                let blocks = try trial.area.blocks()
                // A kernel that does not know the mode of CONTINUE (before 6.4) refuses it unseen.
                let unknown: [RawAnswer] = call == .continue ? [.refused(.invalidArgument)] : []
                try expectOne(
                    of: [.failed(.invalidArgument)] + unknown, trial.fill(1..<3, mode: 1 << 1), "\(call) with MODE_WP")
                try trial.area.expectUnmapped(0..<4, "\(call) was refused")
                try expectEqual(trial.area.blocks(), blocks, "st_blocks after the refused \(call)")
                try touch.thread.expectStillAsleep("a refused \(call) wakes nobody")
                try expectEqual(trial.fill(1..<3), trial.done(2), "\(call) without MODE_WP")
                try trial.finish(touch, page: 1)
            }
        },
    ]

    /// Sources that end outside user memory: newer kernels look at once, older ones when they copy.
    private static func refusedSources(_ trial: FillTrial) throws {
        let page = trial.area.pageSize.bytes
        let wraps = UInt.max - UInt(page) + 2
        try expectEqual(
            trial.uffd.raw(.copy, trial.area.page(1), source: wraps), .refused(.invalidArgument),
            "COPY from a source that wraps")
        try expectOne(
            of: [.refused(.invalidArgument), .failed(.badAddress)],
            trial.uffd.raw(.copy, trial.area.page(1), source: BadPointer.kernelHalf),
            "COPY from a source past user memory")
    }
}

extension Area {
    /// The size of a page, for addresses.
    fileprivate var stride: UInt { UInt(pageSize.bytes) }
}
