import UserfaultFD

/// UFFDIO_MOVE resolving faults: upstream's tests, by page and by huge page.
enum MoveCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move", on: [.anon],
            "MOVE resolves each missing fault with the source's page, which then reads as zeros",
            requires: [.features(.move)], covers: [.upstream, .movedState]
        ) { context in
            let source = try Area(context, pages: 16)
            let destination = try Area(context, pages: 16)
            try source.view.advise(.noHugePage)
            try source.view.advise(.dontFork)
            source.fillView()
            try resolve(from: source, to: destination, chunk: 1)
        },
        SelftestCase(
            "move-pmd", on: [.anon],
            "MOVE of a whole aligned huge page moves it in one piece",
            requires: [.features(.move), .transparentHugePages], covers: [.upstream]
        ) { context in
            let (source, destination) = try Area.hugeSourceAndDestination(context, count: 2)
            try destination.view.advise(.hugePage)
            try source.view.advise(.dontFork)
            try resolve(from: source, to: destination, chunk: Area.hugePageCount)
            try expectEqual(try destination.hugeBytes(), destination.range.count, "bytes in huge pages that were moved")
            try destination.swapOutAndExpectPatterns()
        },
        SelftestCase(
            "move-pmd-swapped", on: [.anon],
            "a huge page that was moved whole can be swapped out like one that was not, and comes back whole",
            requires: [.features(.move), .transparentHugePages, .swap], limit: .seconds(30), covers: [.movedState]
        ) { context in
            let count = Area.hugePageCount
            // Shows that the kernel does swap huge pages out.
            try Area.transparentHuge(context, count: 1).swapOut(0..<count)
            let source = try Area.transparentHuge(context, count: 1)
            let destination = try Area(context, pages: count, alignment: Area.hugePageBytes)
            try destination.view.advise(.hugePage)
            let uffd = try destination.registered(.missing)
            try uffd.raw(.move, destination.range, source: source.address(0)).expectDone(destination.range.count)
            try expectEqual(try destination.hugeBytes(), destination.range.count, "bytes in huge pages that were moved")
            try destination.swapOut(0..<count, isProven: true)
            try expectPatterns(0..<count, at: destination.range.start, "contents after swapping")
        },
        SelftestCase(
            "move-pmd-split", on: [.anon],
            "MOVE of a part of a huge page splits it: the part moves, the rest stays",
            requires: [.features(.move), .transparentHugePages], covers: [.upstream]
        ) { context in
            let (source, destination) = try Area.hugeSourceAndDestination(context, count: 2)
            try destination.view.advise(.noHugePage)
            try source.view.advise(.dontFork)
            // Three quarters of one, then an end and a beginning, at another offset.
            let uffd = try destination.registered(.missing, features: [])
            let quarter = Area.hugePageCount / 4
            let parts = [(0, quarter / 2), (quarter / 2, 3), (3 * quarter, 2 * quarter)]
            var moved: Set<Int> = []
            for (first, count) in parts {
                let part = destination.pages(first + 1..<first + 1 + count)
                try expectEqual(
                    uffd.raw(.move, part, source: source.address(first)), .done(part.count), "MOVE of \(count) pages")
                moved.formUnion(first..<first + count)
            }
            try expectPartsMoved(from: source, to: destination, moved)
        },
        SelftestCase(
            "move-pmd-split-faults", on: [.anon],
            "MOVE resolves faults by whole huge pages where the destination wants none",
            requires: [.features(.move), .transparentHugePages], covers: [.movedState]
        ) { context in
            let (source, destination) = try Area.hugeSourceAndDestination(context, count: 2)
            try destination.view.advise(.noHugePage)
            try source.view.advise(.dontFork)
            try resolve(from: source, to: destination, chunk: Area.hugePageCount)
        },
    ]

    /// Touches every page of the destination; a handler moves the chunk of pages that holds it.
    private static func resolve(from source: Area, to destination: Area, chunk: Int) throws {
        let descriptor = Handler.Descriptor(try UserfaultFD())
        let ioctls = try descriptor.uffd.register(destination.range, modes: .missing)
        try expect(ioctls.contains(.move), "registration offers MOVE", seen: "\(ioctls)")
        let base = destination.pageSize.bytes
        let handler = try Handler(descriptor) { fault in
            try expectEqual(fault.flags, [], "flags of the fault")
            let first = Int(fault.address - destination.range.start) / base / chunk * chunk
            let part = destination.pages(first..<first + chunk)
            try expectEqual(
                descriptor.uffd.raw(.move, part, source: source.address(first), mode: 2), .done(part.count),
                "MOVE with ALLOW_SRC_HOLES")
        }
        for page in stride(from: 0, to: source.pageCount, by: max(1, chunk / 4)) {
            if page % chunk == 0 {
                try expectPatterns(page..<page + chunk, at: source.address(page), "source before its move")
                // A page already moved would hide that nothing was resolved.
                try expect(!PagemapEntry(of: destination.address(page)).isPresent, "page \(page) is missing")
            }
            let byte = Pattern.byte(page: page)
            try Touch.read(destination.address(page)).finish(with: byte)
        }
        let counts = try handler.stop()
        try expectEqual(counts.missing, source.pageCount / chunk, "missing faults")
        try expectEqual(counts.minor + counts.writeProtect, 0, "other faults")
        try expectPatterns(0..<destination.pageCount, at: destination.range.start, "destination")
        try expect(
            try PagemapEntry.entries(of: source.range).allSatisfy { !$0.isPresent && !$0.isSwapped },
            "no page left in the source")
        try Pattern.expectZero(at: source.range.start, count: source.range.count, "the source")
    }

    /// Fails unless exactly these pages have left the source for the page after their own of the destination.
    private static func expectPartsMoved(from source: Area, to destination: Area, _ moved: Set<Int>) throws {
        let base = PageSize.base.bytes
        let sourceEntries = try PagemapEntry.entries(of: source.range)
        let destinationEntries = try PagemapEntry.entries(of: destination.range)
        for page in 0..<source.pageCount {
            try expectEqual(sourceEntries[page].isPresent, !moved.contains(page), "page \(page) left in the source")
            try expectEqual(
                destinationEntries[page].isPresent, moved.contains(page - 1), "page \(page) in the destination")
            let place = moved.contains(page) ? destination.address(page + 1) : source.address(page)
            try Pattern.expect(seed: 0, page: page, at: place, count: base, "contents of a split huge page")
        }
    }
}

extension Area {
    /// Swaps out and in again, which loses what was not marked dirty.
    ///
    /// Nothing is done where nothing can be swapped.
    fileprivate func swapOutAndExpectPatterns() throws {
        try view.advise(.pageOut)
        try expectPatterns(0..<pageCount, at: range.start, "contents after MADV_PAGEOUT")
    }
}
