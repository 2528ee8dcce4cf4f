import SystemPackage
import UserfaultFD

/// Protection of pages that the kernel moves about in memory, which it may do at any time.
///
/// It is asked to by compacting memory. Which pages that moves is up to it, so there are many; where none moves, they are
/// spread wider and wider over the host's memory.
enum ProtectMigrationCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-migrated", on: [.anon, .shmem],
            "write-protection outlasts the migration of a page to another frame",
            requires: [
                .writeProtectFaults, .pagemapProtection, .alone, .pageFrames,
                .writableFile("/proc/sys/vm/compact_memory"),
                .addressSpace(Means.muchAddressSpace),
            ],
            limit: .seconds(30), covers: [.protectionSurvives]
        ) { try migrate($0, .writeProtect) },
        SelftestCase(
            "rwp-migrated", on: [.anon, .shmem],
            "read-write-protection outlasts the migration of a page to another frame",
            requires: [
                .features(.readWriteProtect), .alone, .pageFrames, .writableFile("/proc/sys/vm/compact_memory"),
                .addressSpace(Means.muchAddressSpace),
            ],
            limit: .seconds(30), covers: [.readWriteProtect]
        ) { try migrate($0, .readWriteProtect) },
    ]

    /// Pages that stay; those between them are dropped, so that there is something to bring together.
    private static let kept = 2 << 10
    /// Of how many pages one stays, for each area until a page is migrated.
    private static let spreads = [2, 8, 32, 32, 32, 32]

    private static func migrate(_ context: CaseContext, _ call: ProtectCall) throws {
        let uffd = try UserfaultFD(features: call == .writeProtect ? [] : .readWriteProtect)
        let deadline = ContinuousClock.now + Slowness.stretched(.seconds(15))
        // Compaction moves pages to higher frames, into blocks of which a part is free. A few dropped pages may all stay
        // in the processors' own lists, where they are not free for it; many that lie widely apart do not. Where other
        // pages lie lower, they go into the gaps first, and the next area lies where they have been.
        for spread in spreads where spread == spreads[0] || (ContinuousClock.now < deadline && hasRoom(spread)) {
            let area = try spreadOut(context, spread)
            try uffd.register(area.range, modes: call == .writeProtect ? .writeProtect : .readWriteProtect)
            try expectErrno(uffd.raw(call, area.range, mode: 1), nil, "protecting all")
            let before = try PagemapEntry.entries(of: area.range)
            for _ in 0..<2 {
                try compact()
                let after = try PagemapEntry.entries(of: area.range)
                let moved = keptPages(spread).filter { before[$0].frame != after[$0].frame }
                guard !moved.isEmpty else { continue }
                context.record("\(moved.count) of \(kept) pages were migrated; 1 page of \(spread) was kept")
                for page in moved {
                    try expect(
                        after[page].isProtected, "page \(page) protected after its migration", seen: "\(after[page])")
                }
                return try expectMigrated(moved, of: area, uffd, call)
            }
        }
        try context.skip(thisTime: "compaction migrated none of the pages")
    }

    private static func keptPages(_ spread: Int) -> StrideTo<Int> { stride(from: 0, to: kept * spread, by: spread) }

    /// Whether the host has twice the memory that pages spread so far take for a moment.
    private static func hasRoom(_ spread: Int) -> Bool {
        let available = ProcFile.number("MemAvailable", in: "/proc/meminfo") ?? 0
        return 2 * kept * spread * PageSize.base.bytes <= available << 10
    }

    /// An area of which one page of so many is there.
    private static func spreadOut(_ context: CaseContext, _ spread: Int) throws -> Area {
        let area = try Area(context, pages: kept * spread)
        // A huge page of which a part is dropped stays whole, and compaction passes it by.
        if area.memory == .anon { try area.view.advise(.noHugePage) }
        for page in 0..<area.pageCount { Pattern.write(seed: 0, page: page, at: area.address(page), count: 8) }
        for page in keptPages(spread) {
            Pattern.write(seed: 0, page: page, at: area.address(page), count: PageSize.base.bytes)
            try area.view.advise(area.memory == .anon ? .dontNeed : .remove, area.pages((page + 1)..<(page + spread)))
        }
        return area
    }

    private static func compact() throws {
        let compaction = try FileDescriptor.open("/proc/sys/vm/compact_memory", .writeOnly, options: .closeOnExec)
        try compaction.closeAfter { _ = try compaction.writeAll("1".utf8) }
    }

    /// Fails unless a write to a page that was migrated faults, and all of them have kept their contents.
    private static func expectMigrated(
        _ moved: [Int], of area: Area, _ uffd: borrowing UserfaultFD, _ call: ProtectCall
    ) throws {
        let first = moved[0]
        let touch = try Touch.write(area.address(first), 1)
        try uffd.expectFault(
            at: area.address(first), [.write, call == .writeProtect ? .writeProtect : .readWriteProtect])
        try expectErrno(uffd.raw(call, area.range, mode: 0), nil, "unprotecting all")
        try touch.finish(with: 1)
        Pattern.write(seed: 0, page: first, at: area.address(first), count: 8)
        for page in moved { try area.expectView(page, "after migration") }
    }
}
