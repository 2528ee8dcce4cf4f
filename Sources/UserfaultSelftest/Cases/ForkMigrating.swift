import CSelftestSupport
import UserfaultFD

/// Forks while the kernel moves the pages that are protected.
enum ForkMigratingCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-fork-migrating", on: [.anon, .hugetlbPrivate],
            "a child that is forked while a protected page moves to another node has the page whole, and not protected",
            requires: [
                .writeProtectFaults, .pagemapProtection, .threads(8), .file("/sys/devices/system/node/node1"),
            ], limit: .seconds(30), covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, reserves: true)
            area.fillView()
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.checkMoves(of: "such pages", context)
            let mover = try BackgroundCall {
                (0..<400).filter { css_move_page(area.address($0 % 4), CInt($0 / 4 % 2)) == 0 }.count
            }
            let steps = (0..<4).map { area.address($0) }.flatMap { [Child.Step.load($0), .pagemap($0)] }
            var forks = 0
            while !mover.isFinished || forks == 0 {
                let seen = try Child(steps).finish()
                for page in 0..<4 {
                    let byte = Int64(Pattern.byte(page: page))
                    try expectEqual(seen[2 * page], byte, "what child \(forks) reads of page \(page)")
                    let entry = PagemapEntry(rawValue: UInt64(bitPattern: seen[2 * page + 1]))
                    try expect(!entry.isProtected, "page \(page) of child \(forks), not protected", seen: "\(entry)")
                }
                forks += 1
            }
            let moves = try mover.finish()
            context.record("\(moves) moves and \(forks) forks")
            guard moves > 0 else { try context.skip(thisTime: "no page was moved") }
            try area.expectProtected([0, 1, 2, 3], "after the forks")
            for page in 0..<4 { try area.expectView(page, "after the forks") }
        }
    ]
}
