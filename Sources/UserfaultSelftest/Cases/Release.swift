import SystemPackage
import UserfaultFD

/// What happens to memory and to waiters when the userfaultfd goes away: by close, or by UFFDIO_UNREGISTER.
enum ReleaseCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "close-releases", on: .eachKind,
            "closing the last descriptor lets every waiter go on as if there had been no userfaultfd, without a signal",
            covers: [.release]
        ) { context in
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                try closeReleases(kind, context)
            }
        },
        SelftestCase(
            "close-duplicate", on: [.anon],
            "nothing is released as long as one descriptor of the userfaultfd is open",
            requires: [.missingFaults], covers: [.release, .passedDescriptors]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            let second = try uffd.duplicate()
            try uffd.register(area.range, modes: .missing)
            var waiters = try Waiters(.missing, area, [1, 2], of: uffd)
            try uffd.close()
            try waiters.expectAsleep(second, "a duplicate is open")
            try area.expectModes(1, .missing, "after one of two descriptors was closed")
            try second.copy(from: area.source(1..<2), to: area.page(1))
            try waiters.finish("resolved through the duplicate", pages: [1])
            try second.close()
            try waiters.finish("the last descriptor was closed", resolved: false)
            try area.expectModes(1, [], "after the last descriptor was closed")
        },
        SelftestCase(
            "close-unread", on: [.anon],
            "closing releases waiters whose messages nobody has read, many on one page too",
            requires: [.threads(10), .missingFaults], covers: [.release]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let touches = try (0..<8).map { try Touch.read(area.address($0 % 2)) }
            try uffd.waitBlocked(8)
            try uffd.close()
            for touch in touches { try touch.finish(with: 0, "closing releases all") }
        },
        SelftestCase(
            "unregister-wakes", on: .eachKind,
            "UFFDIO_UNREGISTER wakes the waiters of its range where missing faults were registered, and no others",
            covers: [.release, .unregister]
        ) { context in
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                try unregisterWakes(kind, context)
            }
        },
        SelftestCase(
            "unregister-wakes-both", on: [.anon, .shmem, .hugetlb],
            "UFFDIO_UNREGISTER wakes write-protect waiters too where missing faults are registered as well",
            requires: [.writeProtectFaults], covers: [.release, .unregister]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try area.registerFilled(uffd, modes: [.missing, .writeProtect])
            try uffd.writeProtect(area.range, .protect)
            var waiters = try Waiters(.writeProtect, area, [1, 2], of: uffd)
            try uffd.unregister(area.page(1))
            try waiters.finish("its page was unregistered", pages: [1])
            try waiters.expectAsleep(uffd, "another page was unregistered")
            try uffd.unregister(area.range)
            try waiters.finish("its page was unregistered")
        },
        SelftestCase(
            "unregister-ends-protection", on: .eachKind,
            "after UFFDIO_UNREGISTER no page is protected, no mark is left where none was, and contents are kept",
            requires: [.writeProtectFaults], covers: [.unregister, .protectionSurvives]
        ) { context in
            let uffd = try UserfaultFD()
            let area = try protectedArea(context, uffd)
            try uffd.unregister(area.pages(1..<3))
            try expectUnprotected(area, 1..<3, context, uffd)
            if context.memory != .anon {
                try expect(
                    PagemapEntry(of: area.address(3)).isProtected, "the mark behind the unregistered range is kept")
            }
            try uffd.unregister(area.range)
            // Registering anew must not bring a forgotten protection back.
            try uffd.register(area.range, modes: .writeProtect)
            try expectUnprotected(area, 0..<4, context, uffd)
            try area.expectView(0)
            try area.expectView(1)
            for page in 0..<4 {
                try Touch.write(area.address(page) + 8, 0x33).finish(with: 0x33, "the write to page \(page) goes on")
            }
            try uffd.expectNoMessage("nothing is protected")
        },
        SelftestCase(
            "close-ends-protection", on: .eachKind,
            "after close no page is protected, and contents are kept",
            requires: [.writeProtectFaults], covers: [.release, .protectionSurvives]
        ) { context in
            let first = try UserfaultFD()
            let area = try protectedArea(context, first)
            try first.close()
            try area.expectView(0)
            try area.expectView(1)
            let second = try area.registered(.writeProtect)
            try expectUnprotected(area, 0..<4, context, second)
            for page in 0..<4 {
                try Touch.write(area.address(page), 0x33).finish(with: 0x33, "the write to page \(page) goes on")
            }
            try second.expectNoMessage("nothing is protected")
        },
    ]

    private static func closeReleases(_ kind: PageFault.Kind, _ context: CaseContext) throws {
        let area = try Area(context)
        let uffd = try UserfaultFD(features: kind.features)
        try kind.arm(area, 0..<4, with: uffd)
        var waiters = try Waiters(kind, area, [0, 1, 3], of: uffd)
        // What another userfaultfd guards is not released with it.
        let other = try GuardedMemory(pages: 1)
        let strangers = try other.touch(0..<1)

        try uffd.close()
        try waiters.finish("the userfaultfd was closed", resolved: false)
        for page in 0..<4 { try area.expectModes(page, [], "after close") }
        let untouched = area.address(2) + PageFault.Kind.offset
        if kind == .writeProtect {
            try Touch.write(untouched, 0x77).finish(with: 0x77, "the write after close goes on, \(kind)")
        }
        let byte = kind == .writeProtect ? 0x77 : kind.byteUnresolved(2)
        try expectEqual(Touch.load(untouched), .byte(byte), "a read after close, \(kind)")
        // Memory that was released can be registered anew.
        let next = try area.registered(.missing)
        try next.unregister(area.range)

        try strangers[0].thread.expectStillAsleep("another userfaultfd was closed")
        try other.release(strangers)
    }

    private static func unregisterWakes(_ kind: PageFault.Kind, _ context: CaseContext) throws {
        let area = try Area(context, pages: 5)
        let uffd = try UserfaultFD(features: kind.features)
        try kind.arm(area, 0..<5, with: uffd)
        var waiters = try Waiters(kind, area, [0, 1, 2, 4], of: uffd)
        try uffd.unregister(area.pages(1..<3))
        if kind != .missing {
            try waiters.expectAsleep(uffd, "unregistering wakes for missing faults only")
            try uffd.expectWaiters(pending: 0, total: 4, "after UFFDIO_UNREGISTER, \(kind)")
            try uffd.wake(area.pages(1..<3))
        }
        try waiters.finish("unregistered", pages: [1, 2], resolved: false)
        try waiters.expectAsleep(uffd, "neighbours were unregistered")
        for page in 0..<5 {
            try area.expectModes(page, page == 1 || page == 2 ? [] : kind.modes, "after UFFDIO_UNREGISTER, \(kind)")
        }
        // The neighbours still work.
        try kind.resolve(area, 0, with: uffd)
        try waiters.finish("resolved", pages: [0])
        var late = try Waiters(kind, area, [3], of: uffd)
        try kind.resolve(area, 3, with: uffd)
        try late.finish("resolved")
        try uffd.unregister(area.range)
        try uffd.wake(area.range)
        try waiters.finish("unregistered", resolved: false)
    }

    /// Pages 0 and 1 filled, 2 and 3 not; all but page 0 protected.
    private static func protectedArea(
        _ context: CaseContext, _ uffd: borrowing UserfaultFD
    ) throws -> Area {
        let area = try Area(context)
        for page in 0..<2 {
            Pattern.write(seed: 0, page: page, at: area.address(page), count: area.pageSize.bytes)
        }
        try uffd.register(area.range, modes: .writeProtect)
        try uffd.writeProtect(area.pages(1..<4), .protect)
        guard showsProtection(uffd) else { return area }
        try expect(PagemapEntry(of: area.address(1)).isProtected, "the page is protected")
        if context.memory != .anon {
            try expect(PagemapEntry(of: area.address(3)).isProtected, "the empty page is marked")
        }
        return area
    }

    /// Fails if a page is protected.
    private static func expectUnprotected(
        _ area: Area, _ pages: Range<Int>, _ context: CaseContext, _ uffd: borrowing UserfaultFD
    ) throws {
        guard showsProtection(uffd) else {
            context.record("this kernel does not show the bits, and leaves them behind: removed by hand")
            try uffd.register(area.range, modes: .writeProtect)
            return try uffd.writeProtect(area.pages(pages), .unprotect)
        }
        for page in pages {
            try expect(!PagemapEntry(of: area.address(page)).isProtected, "page \(page) is not protected any more")
        }
    }

    /// Whether pagemap shows protection, which it does since Linux 5.14.
    private static func showsProtection(_ uffd: borrowing UserfaultFD) -> Bool {
        uffd.supportedFeatures.contains(.minorShmem)
    }
}
