import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// MOVE while the kernel reclaims, brings back and migrates the same pages.
enum MoveRaceCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move-reclaim-race", on: [.anon],
            "pages that are moved while they are swapped out and brought back are whole, and in one place",
            requires: [.threads(8), .features(.move), .swap], limit: .seconds(30), covers: [.movedState, .moveErrors]
        ) { context in
            let areas = [try Area(context, pages: 16), try Area(context, pages: 16)]
            let uffd = try UserfaultFD()
            areas[0].fillView()
            for area in areas { try uffd.register(area.range, modes: .missing) }
            let crew = Crew()
            for advice in [Advice.pageOut, .willNeed] {
                try crew.add("\(advice)") {
                    while !crew.shouldStop { for area in areas { try area.view.advise(advice) } }
                }
            }
            var refusals = 0
            var swapped = 0
            for round in 0..<40 {
                let (source, destination) = (areas[round % 2], areas[1 - round % 2])
                swapped += try PagemapEntry.entries(of: source.range).filter(\.isSwapped).count
                refusals += try move(
                    uffd, from: source.range.start, to: destination.range.start, count: source.range.count,
                    size: source.pageSize.bytes)
                try source.expectUnmapped(0..<16, "its pages were moved")
            }
            crew.stop()
            try crew.join("the threads that reclaim stop")
            context.record("\(swapped) of 640 pages were swapped out, MOVE was refused \(refusals) times")
            for page in 0..<16 { try areas[0].expectView(page, "moved 40 times") }
            try uffd.expectNoMessage("no page is missing where it was read")
        },
        SelftestCase(
            "move-migrating", on: [.anon],
            "a transparent huge page that migrates to another node can be moved, and is whole afterwards",
            requires: [.features(.move), .transparentHugePages, .file("/sys/devices/system/node/node1")],
            limit: .seconds(30), covers: [.movedState]
        ) { context in
            let first = try Area.transparentHuge(context, count: 1)
            let second = try Area(context, pages: first.pageCount, alignment: Area.hugePageBytes)
            try second.view.advise(.hugePage)
            let uffd = try UserfaultFD()
            for area in [first, second] { try uffd.register(area.range, modes: .missing) }
            let crew = Crew()
            try crew.add("mover") {
                var node: CInt = 0
                while !crew.shouldStop {
                    for area in [first, second] { _ = css_move_page(area.range.start, node) }
                    node = 1 - node
                }
            }
            var refusals = 0
            for round in 0..<20 {
                let (source, destination) = round % 2 == 0 ? (first, second) : (second, first)
                refusals += try move(
                    uffd, from: source.range.start, to: destination.range.start, count: source.range.count,
                    size: source.range.count)
            }
            crew.stop()
            try crew.join("the thread that migrates stops")
            context.record("MOVE was refused \(refusals) times")
            try expectPatterns(0..<first.pageCount, at: first.range.start, "a huge page that was moved 20 times")
        },
        SelftestCase(
            "move-lazily-freed", on: [.anon],
            "a page that MADV_FREE has given up is moved with its contents, or is missing afterwards",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            try source.view.advise(.free, source.pages(0..<2))
            try uffd.raw(.move, destination.range, source: source.range.start).expectDone(source.range.count)
            try destination.view.advise(.pageOut)
            for page in 0..<2 {
                let touch = try Touch.read(destination.address(page))
                try Waiting.until("the page is read, or missing") {
                    try touch.isFinished || uffd.poll(timeout: .zero)
                }
                if !touch.isFinished {
                    context.record("page \(page) was freed after it was moved")
                    try uffd.expectFault(at: destination.address(page), [])
                    try uffd.zeropage(destination.page(page))
                }
                let byte = try touch.finish()
                try expectOne(of: [.byte(0), .byte(Pattern.byte(page: page))], byte, "a page that was given up")
                if byte == .byte(0) { try destination.expectZeroView(page) } else { try destination.expectView(page) }
            }
            for page in 2..<4 { try destination.expectView(page, "a page that was not given up") }
            try source.expectUnmapped(0..<4, "its pages were moved")
        },
    ]

    /// Moves pages one by one, each until it has gone, through what gets in the way for a moment.
    private static func move(
        _ uffd: borrowing UserfaultFD, from source: UInt, to destination: UInt, count: Int, size: Int
    ) throws -> Int {
        var refusals = 0
        for offset in stride(from: 0, to: count, by: size) {
            let target = AddressRange(start: destination + UInt(offset), count: size)
            try Waiting.until("MOVE of the page at \(offset) is not refused any more") {
                let answer = uffd.raw(.move, target, source: source + UInt(offset))
                if answer == .done(size) { return true }
                refusals += 1
                try expectOne(
                    of: [.resourceBusy, .resourceTemporarilyUnavailable], Errno(rawValue: answer.errno),
                    "errno of MOVE while the page is busy (\(answer))")
                return false
            }
        }
        return refusals
    }
}
