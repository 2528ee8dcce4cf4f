import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// MOVE of pages that somebody else has a share in, and what the moved page can do afterwards.
enum MoveBusyCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move-shared-swapped", on: [.anon],
            "a swapped page that a child shares cannot be moved: EBUSY",
            requires: [.features(.move), .swap], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            try source.swapOut(0..<4)
            let uffd = try destination.registered(.missing)
            let child = try Child([.pause, .load(source.address(1))])
            try child.waitPaused()
            for mode: UInt64 in [0, 2] {
                try expectEqual(
                    uffd.raw(.move, destination.pages(1..<3), source: source.address(1), mode: mode),
                    .failed(.resourceBusy), "MOVE of a swapped page that a child shares")
            }
            try expect(try PagemapEntry(of: source.address(1)).isSwapped, "the source's page stays")
            try expect(!PagemapEntry(of: destination.address(1)).isSwapped, "nothing is moved")
            try child.resume()
            try expectEqual(try child.finish()[1], Int64(Pattern.byte(page: 1)), "byte that the child reads")
            for page in 0..<4 { try source.expectView(page) }
        },
        SelftestCase(
            "move-shared-huge", on: [.anon],
            "a huge page that a child shares cannot be moved, neither whole nor in part: EBUSY",
            requires: [.features(.move), .transparentHugePages], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.hugeSourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let child = try Child([.pause, .load(source.address(1))])
            try child.waitPaused()
            for part in [destination.range, destination.pages(3..<5)] {
                let from = source.range.start + (part.start - destination.range.start)
                try expectEqual(
                    uffd.raw(.move, part, source: from), .failed(.resourceBusy),
                    "MOVE of \(part.count) bytes of a huge page that a child shares")
            }
            try expectEqual(source.hugeBytes(), source.range.count, "bytes of the source in huge pages, left whole")
            try expect(
                try PagemapEntry.entries(of: destination.range).allSatisfy { !$0.isPresent }, "nothing is moved")
            try child.resume()
            try expectEqual(try child.finish()[1], Int64(Pattern.byte(page: 1)), "byte that the child reads")
            try expectPatterns(0..<source.pageCount, at: source.range.start, "the source")
        },
        SelftestCase(
            "move-swap-cache", on: [.anon],
            "a swapped page that is in the swap cache still is moved with it, and can be swapped out again",
            requires: [.features(.move), .swap], covers: [.moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            // A page that somebody holds is written to swap and unmapped, and yet stays in the swap cache.
            let held = css_hold_page(source.address(1))
            try expect(held >= 0, "the page is held by a pipe", seen: "errno \(-held)")
            try source.swapOut(0..<4)
            let uffd = try destination.registered(.missing)
            try uffd.move(from: source.range.start, to: destination.range)
            try expect(try PagemapEntry(of: destination.address(1)).isSwapped, "the moved page is swapped")
            close(held)
            for page in 0..<4 { try destination.expectView(page, "moved pages, swapped in") }
            Pattern.write(seed: 2, page: 1, at: destination.address(1), count: PageSize.base.bytes)
            try destination.swapOut(0..<4, isProven: true)
            for page in 0..<4 { try destination.expectView(page, seed: page == 1 ? 2 : 0, "swapped once more") }
            for page in 0..<4 { try source.expectZeroView(page) }
        },
        SelftestCase(
            "move-no-second-fault", on: [.anon],
            "a moved page is writable: writing it takes no further fault",
            requires: [.features(.move)], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context, pages: 8)
            let uffd = try destination.registered(.missing)
            try uffd.move(from: source.range.start, to: destination.range)
            // Anything may fault once besides; a page that is not writable faults every time.
            let faults = (0..<8).map { page in
                let before = minorFaults()
                Touch.store(destination.address(page), 7)
                return minorFaults() - before
            }
            try expect(faults.contains(0), "a write without a fault", seen: "faults of eight writes: \(faults)")
        },
    ]

    /// The faults of the calling thread that needed no reading.
    private static func minorFaults() -> Int {
        var usage = rusage()
        getrusage(1, &usage)  // RUSAGE_THREAD
        return usage.ru_minflt
    }
}
