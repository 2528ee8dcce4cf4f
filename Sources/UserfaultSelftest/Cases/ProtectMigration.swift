import SystemPackage
import UserfaultFD

/// Protection of pages that the kernel moves about in memory, which it may do at any time.
///
/// It is asked to by compacting memory. Which pages that moves is up to it, so there are many; where none moves, the
/// result is a skip.
enum ProtectMigrationCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-migrated", on: [.anon, .shmem],
            "write-protection outlasts the migration of a page to another frame",
            requires: [
                .writeProtectFaults, .pagemapProtection, .alone, .pageFrames, .file("/proc/sys/vm/compact_memory"),
            ],
            limit: .seconds(30), covers: [.protectionSurvives]
        ) { try migrate($0, .writeProtect) },
        SelftestCase(
            "rwp-migrated", on: [.anon, .shmem],
            "read-write-protection outlasts the migration of a page to another frame",
            requires: [.features(.readWriteProtect), .alone, .pageFrames, .file("/proc/sys/vm/compact_memory")],
            limit: .seconds(30), covers: [.readWriteProtect]
        ) { try migrate($0, .readWriteProtect) },
    ]

    private static let pages = 4 << 10

    private static func migrate(_ context: CaseContext, _ call: ProtectCall) throws {
        let area = try Area(context, pages: pages)
        let uffd = try UserfaultFD(features: call == .writeProtect ? [] : .readWriteProtect)
        // Every other page goes, so that there is something to bring together.
        area.fillView()
        for page in stride(from: 1, to: area.pageCount, by: 2) {
            try area.view.advise(area.memory == .anon ? .dontNeed : .remove, area.page(page))
        }
        try uffd.register(area.range, modes: call == .writeProtect ? .writeProtect : .readWriteProtect)
        try expectErrno(uffd.raw(call, area.range, mode: 1), nil, "protecting all")
        let before = try PagemapEntry.entries(of: area.range)
        var after = before
        var moved: [Int] = []
        for _ in 0..<8 where moved.isEmpty {
            let compaction = try FileDescriptor.open("/proc/sys/vm/compact_memory", .writeOnly, options: .closeOnExec)
            try compaction.closeAfter { _ = try compaction.writeAll("1".utf8) }
            after = try PagemapEntry.entries(of: area.range)
            moved = stride(from: 0, to: area.pageCount, by: 2).filter { before[$0].frame != after[$0].frame }
        }
        context.record("\(moved.count) of \(area.pageCount / 2) pages were migrated")
        guard let first = moved.first else { try context.skip("this time compaction migrated none of the pages") }
        for page in moved {
            try expect(after[page].isProtected, "page \(page) protected after its migration", seen: "\(after[page])")
        }
        let touch = try Touch.write(area.address(first), 1)
        try uffd.expectFault(
            at: area.address(first), [.write, call == .writeProtect ? .writeProtect : .readWriteProtect])
        try expectErrno(uffd.raw(call, area.range, mode: 0), nil, "unprotecting all")
        try touch.finish(with: 1)
        Pattern.write(seed: 0, page: first, at: area.address(first), count: 8)
        for page in moved { try area.expectView(page, "after migration") }
    }
}
