import Glibc
import SystemPackage
import UserfaultFD

/// UFFDIO_CONTINUE and the page it maps: what must already be in it, and who else holds it.
enum ContinueMemoryCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "continue-fallocated", on: .pageCache,
            "CONTINUE of a page that was allocated and never written shows zeros, not what the memory held before",
            requires: [.minorFaults], covers: [.continueAllocated, .unwrittenPages]
        ) { context in
            let area = try Area(context, pages: context.memory.isHugetlb ? 4 : 64, offset: 3)
            let uffd = try area.registered(.minor)
            try dirtyFreeMemory()
            try area.file!.allocate(at: area.fileOffset, count: area.range.count)
            let blocks = try area.blocks()
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .minor)
            try uffd.raw(.continue, area.range).expectDone(area.range.count)
            try touch.finish(with: 0)
            try area.expectMapped(0..<area.pageCount, isFile: true)
            for page in 0..<area.pageCount {
                try area.expectZeroView(page)
                try area.expectStoredZeros(page)
            }
            try expectEqual(area.blocks(), blocks, "st_blocks after CONTINUE")
            try uffd.expectNoMessage("every page was continued")
        },
        SelftestCase(
            "continue-swapped", on: .allShmem,
            "a page of the file that is swapped out is a minor fault, and CONTINUE brings it back whole",
            requires: [.minorFaults, .swap], limit: .seconds(30),
            covers: [.continueSwapped, .continueDirty, .swappedMinor]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.minor)
            try area.fillFile()
            let blocks = try area.blocks()
            try area.swapOutFile(isProven: false)
            if !context.memory.isPrivate {
                let source = try area.source(0..<1, seed: 8)
                try expectEqual(
                    uffd.raw(.copy, area.page(2), source: source.range.start), .failed(.fileExists),
                    "COPY over a page that is swapped out")
            }
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .minor)
            try uffd.raw(.continue, area.range).expectDone(area.range.count)
            try touch.finish()
            try area.expectMapped(0..<4, isFile: true)
            for page in 0..<4 { try area.expectView(page) }
            try expectEqual(area.blocks(), blocks, "st_blocks after CONTINUE")
            try uffd.expectNoMessage("every page was continued")

            // Once more: nobody holds on to the pages, and what CONTINUE has mapped is dirty, so that nothing is lost.
            for page in 0..<4 {
                try expectEqual(uffd.raw(.continue, area.page(page)), .failed(.fileExists), "CONTINUE repeated")
            }
            try area.swapOutFile(isProven: true)
            for page in 0..<4 {
                try area.expectStored(page)
                try area.expectFile(page)
            }
        },
        SelftestCase(
            "continue-references", on: .allShmem,
            "CONTINUE, done and refused, leaves the file its page when the view is gone and memory is used anew",
            requires: [.minorFaults], covers: [.continueKeepsReferences, .failedContinue]
        ) { context in
            let area = try Area(context, pages: 16, offset: 3)
            let uffd = try area.registered(.minor)
            try area.fillFile()
            for _ in 0..<4 {
                try uffd.raw(.continue, area.range).expectDone(area.range.count)
                for page in 0..<area.pageCount {
                    try expectEqual(uffd.raw(.continue, area.page(page)), .failed(.fileExists), "CONTINUE repeated")
                }
                try area.zapView()
            }
            try uffd.raw(.continue, area.range).expectDone(area.range.count)
            try AddressSpace.unmap(AddressRange(start: area.aliasAddress(0), count: area.range.count))
            try dirtyFreeMemory()
            for page in 0..<area.pageCount { try area.expectView(page) }
            try AddressSpace.unmap(area.range)
            try dirtyFreeMemory()
            for page in 0..<area.pageCount { try area.expectStored(page) }
            let again = try Mapping(area.file!, offset: area.fileOffset)
            for page in 0..<area.pageCount {
                try Pattern.expect(
                    seed: 0, page: page, at: again.page(page).start, count: area.pageSize.bytes,
                    "a new mapping of the file"
                )
            }
        },
        SelftestCase(
            "continue-other-process", on: .pageCache,
            "CONTINUE, done and refused, changes nothing for another process that maps the file",
            requires: [.minorFaults], covers: [.continueOtherProcess]
        ) { context in
            let area = try Area(context, offset: 3)
            try area.fillFile()
            let alias = try area.aliasAddress(1)
            let child = try Child([
                .load(alias), .pause, .load(alias), .store(alias + 1, 0xEE), .pause, .load(alias + 1),
            ])
            try child.waitPaused()
            let uffd = try area.registered(.minor)
            try uffd.raw(.continue, area.pages(0..<3)).expectDone(3 * area.pageSize.bytes)
            for _ in 0..<4 {
                try expectEqual(uffd.raw(.continue, area.page(1)), .failed(.fileExists), "CONTINUE repeated")
            }
            try child.resume()
            try child.waitPaused()
            try expectEqual(Touch.load(area.address(1) + 1), .byte(0xEE), "what the other process wrote, in the view")
            try expectEqual(area.readFile(1)[1], 0xEE, "what the other process wrote, in the file")
            try AddressSpace.unmap(area.range)
            try child.resume()
            let byte = Int64(Pattern.byte(page: 1))
            try expectEqual(child.finish(), [byte, 0, byte, 0, 0, 0xEE], "what the other process saw")
        },
        SelftestCase(
            "continue-kernel-access", on: .pageCache,
            "a system call that meets a minor fault waits for CONTINUE, and then has the file's bytes",
            requires: [.minorFaults, .kernelFaults], covers: [.continueKernelAccess, .kernelFaults]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.minor, options: .init(faults: .userAndKernelMode))
            try area.fillFile()
            let file = try Memfd(count: PageSize.base.bytes).release()

            let first = area.address(1)
            let write = try BackgroundCall {
                RawMemory.write(file, from: UnsafeRawPointer(bitPattern: first), 8, at: 0)
            }
            try uffd.expectFault(at: first, .minor)
            try write.waitBlocked()
            try uffd.raw(.continue, area.page(1)).expectDone(area.pageSize.bytes)
            try expectEqual(write.finish(), 8, "bytes written from page 1 of the view")

            let second = area.address(2)
            let read = try BackgroundCall {
                RawMemory.read(file, into: UnsafeMutableRawPointer(bitPattern: second), 8, at: 0)
            }
            try uffd.expectFault(at: second, [.minor, .write])
            try read.waitBlocked()
            try uffd.raw(.continue, area.page(2)).expectDone(area.pageSize.bytes)
            try expectEqual(read.finish(), 8, "bytes read into page 2 of the view")
            try expectEqual(Touch.load(second), .byte(Pattern.byte(page: 1)), "the byte that came from page 1")
            if context.memory.isPrivate { try area.expectStored(2) }
            try uffd.expectNoMessage("each access was resolved")
        },
        SelftestCase(
            "continue-huge-pool", on: .allHugetlb,
            "huge pages that were continued, and refused, go back to the pool, all of them and no more",
            requires: [.minorFaults], covers: [.continueLeaksNothing, .failedContinue]
        ) { context in
            var rounds: [(before: HugePagePool.Counts, after: HugePagePool.Counts)] = []
            for _ in 0..<5 {
                let before = HugePagePool.Counts()
                try continueAndGiveBack(context)
                let after = HugePagePool.Counts()
                if before == after { return }
                rounds.append((before, after))
            }
            // What the kernel loses, it loses in each round, and in between nothing changes.
            for (round, next) in zip(rounds, rounds.dropFirst()) {
                let isSame =
                    next.before == round.after
                    && next.after.free - next.before.free == round.after.free - round.before.free
                guard isSame else { try context.skip(thisTime: "other programs used the pool of huge pages") }
            }
            try expectEqual(rounds[0].after.free, rounds[0].before.free, "free huge pages in the end")
            try expectEqual(rounds[0].after.reserved, rounds[0].before.reserved, "reserved huge pages in the end")
        },
    ]

    /// Maps the pages of a file with CONTINUE, and gives all of them back.
    private static func continueAndGiveBack(_ context: CaseContext) throws {
        let area = try Area(context, offset: 1)
        let uffd = try area.registered(.minor)
        try area.fillFile()
        try area.punchHole(3..<4)
        try expectEqual(
            uffd.raw(.continue, area.range), .partial(3 * area.pageSize.bytes), "CONTINUE up to the hole")
        for _ in 0..<3 {
            try expectEqual(uffd.raw(.continue, area.pages(1..<4)), .failed(.fileExists), "CONTINUE repeated")
            try expectEqual(uffd.raw(.continue, area.page(3)), .failed(.badAddress), "CONTINUE of the hole")
        }
        for page in 0..<3 { try area.expectView(page) }
        try AddressSpace.unmap(area.range)
        for page in 0..<3 { try area.expectFile(page) }
        try AddressSpace.unmap(AddressRange(start: area.aliasAddress(0), count: area.range.count))
        for page in 0..<3 { try area.expectStored(page) }
        try area.file!.resize(to: 0)
    }

    /// Leaves bytes in memory that is free afterwards.
    private static func dirtyFreeMemory() throws {
        let count = 8 << 20
        let scribble = try Mapping(anonymous: count)
        memset(UnsafeMutableRawPointer(bitPattern: scribble.range.start)!, 0xA5, count)
        try scribble.unmap()
    }
}

extension Area {
    /// Has the file's pages swapped out, by way of the alias alone.
    ///
    /// A page to which someone holds one reference too many stays where it is.
    ///
    /// - Parameter isProven: It has worked before, so that it is a failure where it does not.
    fileprivate func swapOutFile(isProven: Bool) throws {
        try zapView()
        let alias = AddressRange(start: try aliasAddress(0), count: range.count)
        // Only what is mapped is looked at.
        for page in 0..<pageCount { _ = Touch.load(try aliasAddress(page)) }
        try Self.waitSwappedOut("the file's pages are swapped out", isProven: isProven) {
            _ = RawMemory.advise(alias, .pageOut)
            return try swappedBytes() >= range.count
        }
    }
}
