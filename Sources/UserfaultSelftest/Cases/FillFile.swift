import Glibc
import SystemPackage
import UserfaultFD

/// Fills and the file behind the memory: its end, its size changing, the room on its file system.
enum FillFileCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-past-eof", on: .pageCache,
            "COPY, ZEROPAGE and POISON past the end of the file are refused; the page that holds the end is within it",
            requires: [.missingFaults], covers: [.privateCopy, .zeropage, .poison]
        ) { context in
            let memory = context.memory
            for call in try FillCall.working(on: memory) where call != .continue {
                // What is private on hugetlbfs, poison too, asks nothing of the file.
                if memory.isHugetlb && (memory.isPrivate || call == .poison) { continue }
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let page = trial.area.pageSize.bytes
                try trial.area.truncate(toViewBytes: memory.isHugetlb ? 2 * page : page + page / 2)
                let blocks = try trial.area.blocks()
                let newer: [RawAnswer] =
                    memory.isPrivate || memory.isHugetlb || call == .poison ? [] : [.failed(.noMemory)]
                for pages in [2..<3, 2..<4, 3..<4] {
                    let answer = trial.fill(pages)
                    try expectOne(of: [.failed(.badAddress)] + newer, answer, "\(call) past the end of the file")
                    if pages == 3..<4 { context.record("\(call) past the end of the file: \(answer)") }
                }
                try trial.area.expectUnmapped(0..<4, "\(call) was refused")
                try expectEqual(trial.area.blocks(), blocks, "st_blocks after the refused \(call)")
                try expectEqual(trial.fill(0..<4), .partial(2 * page), "\(call) over the end of the file")
                try trial.expectFilled(0..<2)
                try trial.area.expectUnmapped(2..<4, "it lies past the end of the file")
                try expectEqual(Touch.load(trial.area.address(2)).signal, SIGBUS, "signal past the end of the file")
                try trial.uffd.expectNoMessage("past the end of the file there is no fault to resolve")
            }
        },
        SelftestCase(
            "fill-truncate-race", on: .allShmem,
            "however a fill and a truncation meet, no page stays mapped past the end of the file",
            requires: [.missingFaults], limit: .seconds(30), covers: [.continueRaces, .truncation]
        ) { context in
            try race(context, shrinks: true)
        },
        SelftestCase(
            "fill-punch-race", on: .allShmem,
            "however a fill and a hole punched meet, no page of the file stays mapped in the hole",
            requires: [.missingFaults], limit: .seconds(30), covers: [.continueRaces, .truncation]
        ) { context in
            try race(context, shrinks: false)
        },
        SelftestCase(
            "fill-quota", on: [.tmpfs, .tmpfsPrivate],
            "on a full file system COPY and ZEROPAGE of shared memory answer ENOMEM and leave nothing; others need none",
            requires: [.missingFaults, .privateMounts], covers: [.exhaustion, .continueResident]
        ) { context in
            let directory = try context.mountPrivateTmpfs(options: "size=\(8 * PageSize.base.bytes)")
            let area = try Area(context, pages: 16, offset: 3, directory: directory)
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<16)
            let page = area.pageSize.bytes
            guard !context.memory.isPrivate else {
                try uffd.raw(.copy, area.range, source: source.range.start).expectDone(16 * page)
                return try expectEqual(area.fileSystem()!.freeBlocks, 8, "free blocks after COPY on a private mapping")
            }
            let calls: [FillCall] = [.copy, .zeropage]
            for call in calls {
                try expectEqual(
                    uffd.raw(call, area.range, source: source.range.start), .partial(8 * page), "\(call) of too much")
                try expectEqual(area.fileSystem()!.freeBlocks, 0, "free blocks after it")
                let touch = try Touch.read(area.address(8))
                try uffd.expectFault(at: area.address(8), [])
                try touch.thread.waitAsleep()
                let rest = source.range.start + UInt(8 * page)
                for _ in 0..<3 {
                    try expectEqual(
                        uffd.raw(call, area.pages(8..<16), source: rest), .failed(.noMemory),
                        "\(call) on a full file system")
                }
                try area.expectUnmapped(8..<16, "\(call) was refused")
                try touch.thread.expectStillAsleep("a refused \(call) wakes nobody")
                try expectEqual(area.blocks(), 8 * page / 512, "st_blocks of the file")
                try area.expectStoredZeros(8)

                try area.punchHole(0..<2)
                try expectEqual(area.fileSystem()!.freeBlocks, 2, "free blocks after two pages were punched")
                try uffd.raw(call, area.page(8), source: rest).expectDone(page)
                try touch.finish()
                if call == .copy { try area.expectView(8) } else { try area.expectZeroView(8) }
                try expectEqual(area.fileSystem()!.freeBlocks, 1, "free blocks after one more page")
                try area.punchHole(0..<16)
                try expectEqual(area.fileSystem()!.freeBlocks, 8, "free blocks of the empty file system")
            }
        },
        SelftestCase(
            "copy-huge-pool", on: .allHugetlb,
            "COPY without a free huge page is refused and takes nothing from the pool; with one it is done",
            requires: [.missingFaults, .privateHugetlbfs], covers: [.exhaustion]
        ) { context in
            // A pool of two pages within the host's, so that nobody else is left without.
            let directory = try context.mountPrivateHugetlbfs(pages: 2)
            let area = try Area(context, offset: 1, directory: directory)
            let free = { try area.fileSystem()?.freeBlocks }
            // Where nobody uses the host's pool, it shows too what a call has taken.
            let isIdle = HugePagePool.free == HugePagePool.total
            let poolFree = HugePagePool.free
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<4)
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), [])
            try touch.thread.waitAsleep()

            // Another file takes what there is, page by page.
            let hoard = try Memfd(fileIn: directory, count: 4 * area.pageSize.bytes)
            var taken = 0
            while hoard.take(taken, area.pageSize.bytes) { taken += 1 }
            try expectEqual(taken, 2, "pages that the other file could take")
            let start = source.range.start
            let answer = uffd.raw(.copy, area.page(1), source: start)
            try expectOne(of: [.failed(.noMemory), .failed(.fileExists)], answer, "COPY without a free huge page")
            context.record("COPY without a free huge page: \(answer)")
            try area.expectUnmapped(0..<4, "COPY was refused")
            try expectEqual(area.blocks(), 0, "st_blocks after the refused COPY")
            try touch.thread.expectStillAsleep("a refused COPY wakes nobody")
            try expectEqual(free(), 0, "free huge pages after the refused COPY")
            try hoard.resize(to: 0)
            try expectEqual(free(), 2, "free huge pages when the other file is empty")

            try uffd.raw(.copy, area.pages(1..<3), source: start + UInt(area.pageSize.bytes))
                .expectDone(2 * area.pageSize.bytes)
            try touch.finish()
            for page in 1..<3 { try area.expectView(page) }
            try expectEqual(free(), 0, "free huge pages after COPY of two")
            let refused = uffd.raw(.copy, area.pages(1..<3), source: start)
            try expectEqual(refused, .failed(.fileExists), "COPY repeated")
            try expectEqual(free(), 0, "free huge pages after the COPY that was refused")
            try AddressSpace.unmap(area.range)
            try area.file!.resize(to: 0)
            try expectEqual(free(), 2, "free huge pages in the end")
            let users = HugePageUsers.all()
            guard isIdle, users.isEmpty else { return }
            try expectEqual(HugePagePool.free, poolFree, "free huge pages of the host in the end")
        },
    ]

    /// Fills in one thread while another shrinks and grows the file, or punches holes.
    private static func race(_ context: CaseContext, shrinks: Bool) throws {
        for call in try FillCall.working(on: context.memory) {
            let trial = try FillTrial(call, context)
            defer { trial.end() }
            let area = trial.area
            let changer = try BackgroundCall {
                for _ in 0..<60 {
                    if shrinks {
                        try area.truncate(toViewBytes: area.pageSize.bytes)
                        try area.truncate(toViewBytes: area.range.count)
                    } else {
                        try area.punchHole(1..<4)
                    }
                    if call == .continue { for page in 1..<4 { try area.fillFile(page) } }
                }
            }
            let lawful: [Errno] = [
                .badAddress, .invalidArgument, .fileExists, .resourceTemporarilyUnavailable, .noMemory,
            ]
            while !changer.isFinished {
                let answer = trial.fill(0..<4)
                if answer.errno != 0 {
                    try expectOne(of: lawful, Errno(rawValue: answer.errno), "\(call) while the file changes")
                }
                try area.zapView()
            }
            try changer.finish()

            _ = trial.fill(0..<4)
            _ = trial.fill(1..<4)
            if shrinks {
                try area.truncate(toViewBytes: area.pageSize.bytes)
                try area.expectUnmapped(1..<4, "the file ends before it")
                for page in 1..<4 {
                    try expectEqual(Touch.load(area.address(page)).signal, SIGBUS, "signal past the end of the file")
                }
                let blocks = try area.blocks()
                try expect(
                    blocks <= area.pageSize.bytes / 512, "the file has one page at most", seen: "\(blocks) blocks")
            } else {
                try area.punchHole(1..<4)
                for page in 1..<4 {
                    let entry = try PagemapEntry(of: area.address(page))
                    try expect(!entry.isPresent || !entry.isFile, "the file's page is not mapped", seen: "\(entry)")
                    try area.expectStoredZeros(page)
                }
            }
        }
    }
}

extension Memfd {
    /// Allocates one page of the file.
    ///
    /// False when there is none left.
    fileprivate func take(_ index: Int, _ bytes: Int) -> Bool {
        (try? allocate(at: index * bytes, count: bytes)) != nil
    }
}
