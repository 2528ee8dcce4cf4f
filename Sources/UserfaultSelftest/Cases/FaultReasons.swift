import CSelftestSupport
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// When an access becomes a message, and when it must not.
enum FaultReasonCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fault-missing", on: .all,
            "each access to a page that is nowhere makes a message, and none to a page that is there",
            requires: [.missingFaults], covers: [.privateCopy]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            // Page 0 is there before anything is registered.
            Pattern.write(seed: 0, page: 0, at: area.address(0), count: area.pageSize.bytes)
            try uffd.register(area.range, modes: .missing)
            try area.expectView(0)
            try expectEqual(Touch.store(area.address(0), 4), .byte(4), "a write to a page that is there")
            try uffd.expectNoMessage("the page is there")
            for (page, isWrite) in [(1, false), (2, true)] {
                let address = area.address(page) + PageFault.Kind.offset
                let touch = isWrite ? try Touch.write(address, 0xEE) : try Touch.read(address)
                try uffd.expectFault(at: area.address(page), isWrite ? .write : [])
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page))
                try touch.finish(with: isWrite ? 0xEE : PageFault.Kind.missing.byte(page))
                try expectEqual(Touch.store(address, 5), .byte(5), "a write to a page that was filled")
                try expectEqual(
                    Touch.load(area.address(page)), .byte(byte(page, 0)), "the rest of the page that was filled")
            }
            try uffd.expectNoMessage("what was filled is there")
            try expect(!PagemapEntry(of: area.address(3)).isPresent, "nobody has filled the last page")
        },
        SelftestCase(
            "fault-by-cache", on: .pageCache,
            "a hole of the file is a missing page, a page that only the file has is a minor fault, and neither is both",
            requires: [.missingFaults, .minorFaults], covers: [.privateContinue]
        ) { context in
            let uses: [UserfaultFD.RegisterModes] = [.missing, .minor, [.missing, .minor]]
            let area = try Area(context)
            for modes in uses {
                try area.empty()
                let uffd = try UserfaultFD()
                // Pages 1 and 3 are in the file; 0 and 2 are holes.
                for page in [1, 3] { try area.fillFile(page) }
                try uffd.register(area.range, modes: modes)

                let cached = try Touch.read(area.address(1) + PageFault.Kind.offset)
                if modes.contains(.minor) {
                    try uffd.expectFault(at: area.address(1), .minor)
                    try uffd.continue(area.page(1))
                }
                try cached.finish(with: PageFault.Kind.minor.byte(1), "a page of the file, registered \(modes)")
                try area.expectView(1)

                let hole = try Touch.write(area.address(2) + PageFault.Kind.offset, 0xEE)
                if modes.contains(.missing) {
                    try uffd.expectFault(at: area.address(2), .write)
                    try uffd.copy(from: area.source(2..<3), to: area.page(2))
                }
                try hole.finish(with: 0xEE, "a hole of the file, registered \(modes)")
                try expectEqual(
                    Touch.load(area.address(2) + PageFault.Kind.offset + 8),
                    .byte(modes.contains(.missing) ? byte(2, PageFault.Kind.offset + 8) : 0),
                    "the rest of the hole's page"
                )
                try uffd.expectNoMessage("both pages are there, registered \(modes)")
            }
        },
        SelftestCase(
            "fault-past-end", on: .pageCache, "an access past the end of the file is SIGBUS and no message",
            requires: [.missingFaults], covers: [.truncation]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            var modes: UserfaultFD.RegisterModes = .missing
            let both: UserfaultFD.RegisterModes = [.missing, .minor]
            if both.areLawful(on: context.memory, uffd.supportedFeatures) { modes = both }
            try area.fillFile()
            try uffd.register(area.range, modes: modes)
            try area.file!.resize(to: area.fileOffset + 2 * area.pageSize.bytes)
            for page in 2..<4 {
                for touch in [try Touch.read(area.address(page)), try Touch.write(area.address(page), 1)] {
                    try expectEqual(
                        touch.finish("it raises a signal and does not wait"),
                        .signal(css_fault(signal: SIGBUS, code: Int32(BUS_ADRERR), address: 0, address_lsb: 0)),
                        "outcome of an access past the end")
                }
            }
            try uffd.expectNoMessage("what is past the end cannot be filled")
        },
        SelftestCase(
            "fault-around", on: .allShmem,
            "where minor or write-protect faults are registered an access maps its own page and no neighbour",
            requires: [.minorFaults], covers: [.privateContinue]
        ) { context in
            let known = try UserfaultFD().supportedFeatures
            for modes in [.minor, .writeProtect] as [UserfaultFD.RegisterModes]
            where modes.areLawful(on: context.memory, known) {
                let area = try Area(context, pages: 16)
                try area.fillFile()
                let uffd = try area.registered(modes)
                let touch = try Touch.read(area.address(7))
                if modes == .minor {
                    try uffd.expectFault(at: area.address(7), .minor)
                    try uffd.continue(area.page(7))
                }
                try touch.finish()
                try uffd.expectNoMessage("one page was touched")
                for page in 0..<16 {
                    try expectEqual(
                        PagemapEntry(of: area.address(page)).isPresent, page == 7,
                        "whether page \(page) is mapped, \(modes)")
                }
            }
        },
        SelftestCase(
            "fault-many", on: .eachKind,
            "many threads at one page are all reported or served, and one fill lets all of them go on",
            requires: [.threads(28), .missingFaults], covers: [.manyWaiters]
        ) { context in
            let count = 24
            let area = try Area(context, pages: 2)
            let uffd = try area.registered(.missing)
            let touches = try (0..<count).map { try Touch.read(area.address(1) + UInt($0) * 8) }
            try uffd.waitBlocked(count)
            for touch in touches { try touch.thread.waitAsleep() }
            var batch = EventBatch(capacity: count + 1)
            try expectEqual(uffd.read(into: &batch), count, "messages of threads at one page")
            while let fault = batch.nextPageFault() {
                try expectEqual(fault.address, area.address(1), "address of each")
            }
            let source = try area.source(1..<2)
            try expectEqual(uffd.raw(.copy, area.page(1), from: source), .done(area.pageSize.bytes), "the first COPY")
            for touch in touches { try touch.finish("one COPY lets all go on") }
            try expectEqual(uffd.raw(.copy, area.page(1), from: source), .failed(.fileExists), "a second COPY")
            try uffd.expectWaiters(pending: 0, total: 0, "after one COPY")
            try area.expectView(1)
        },
        // The page is filled while its access is on the way to sleep: a wake-up that is lost there hangs the access.
        //
        // Each side in turn is a little late, by ever more, so that every moment has its turn. ZEROPAGE is the fastest
        // from page to wake-up.
        SelftestCase(
            "fault-race-with-fill", on: [.anon, .shmem],
            "an access at the very moment at which its page is filled goes on, whichever comes first",
            requires: [.missingFaults], covers: [.atomicity]
        ) { context in
            let pages = 3072
            let area = try Area(context, pages: pages)
            let descriptor = Handler.Descriptor(try UserfaultFD())
            try descriptor.uffd.register(area.range, modes: .missing)
            let turn = Turn()
            let toucher = try BackgroundCall {
                for page in 0..<pages {
                    turn.page.store(page, ordering: .sequentiallyConsistent)
                    Turn.wait(page.isMultiple(of: 4) ? 0 : page % 256 * 4)
                    guard Touch.load(area.address(page)) == .byte(0) else { return page }
                }
                return pages
            }
            for page in 0..<pages {
                // At once when it is so far, and with an eye on the clock only where it takes long.
                for _ in 0..<20000 where turn.page.load(ordering: .acquiring) < page {}
                try Waiting.until("the access of page \(page - 1) goes on") {
                    turn.page.load(ordering: .acquiring) >= page
                }
                Turn.wait(page.isMultiple(of: 4) ? page % 256 * 4 : 0)
                try expectEqual(
                    descriptor.uffd.raw(.zeropage, area.page(page)), .done(PageSize.base.bytes),
                    "ZEROPAGE of page \(page)")
            }
            try expectEqual(toucher.finish("the last access goes on"), pages, "pages that were read as zero")
            try descriptor.uffd.expectWaiters(total: 0, "at the end")
        },
        SelftestCase(
            "fault-huge-page", on: [.anon],
            "memory that may have transparent huge pages faults page by page where missing faults are registered",
            requires: [.missingFaults, .transparentHugePages], covers: [.hugePages]
        ) { context in
            let count = Area.hugePageCount
            let area = try Area(context, pages: count, alignment: Area.hugePageBytes)
            try area.view.advise(.hugePage)
            let uffd = try area.registered(.missing)
            for page in [5, count / 2] {
                let isWrite = page != 5
                let touch = isWrite ? try Touch.write(area.address(page), 0xEE) : try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), isWrite ? .write : [])
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page))
                try touch.finish()
                for other in [page - 1, page + 1, 0, count - 1] {
                    try expect(!PagemapEntry(of: area.address(other)).isPresent, "page \(other) is not there")
                }
            }
            let resident = try MappingAccount(holding: area.address(0))["Rss"]
            try expectEqual(resident, 2 * PageSize.base.bytes / 1024, "KiB of two pages")
            try uffd.expectNoMessage("two pages were touched")
        },
        SelftestCase(
            "unregister-foreign", on: [.anon, .hugetlb],
            "another userfaultfd cannot unregister memory; kernels before 6.17 let it",
            requires: [.missingFaults], covers: [.unregister, .foreignDescriptors]
        ) { context in
            let area = try Area(context)
            let owner = try UserfaultFD()
            let stranger = try UserfaultFD()
            try owner.register(area.pages(1..<3), modes: .missing)
            let answer = stranger.rawUnregister(start: area.range.start, count: UInt(area.range.count))
            if owner.supportedFeatures.contains(.readWriteProtect) || answer != 0 {
                try expectErrno(answer, .invalidArgument, "UFFDIO_UNREGISTER of another's memory")
            }
            for page in 0..<4 {
                try area.expectModes(
                    page, answer != 0 && (1..<3).contains(page) ? .missing : [], "after a stranger's UFFDIO_UNREGISTER")
            }
            context.record("another userfaultfd \(answer == 0 ? "can" : "cannot") unregister")
        },
    ]

    /// The first byte of a word of a page's pattern.
    private static func byte(_ page: Int, _ offset: UInt) -> UInt8 {
        UInt8(truncatingIfNeeded: Pattern.word(seed: 0, page: page, index: Int(offset) / 8))
    }

    private final class Turn: Sendable {
        let page = Atomic<Int>(-1)

        /// Lets a moment pass that no clock could measure.
        static func wait(_ steps: Int) {
            let steps = Atomic(steps)
            while steps.load(ordering: .relaxed) > 0 { steps.subtract(1, ordering: .relaxed) }
        }
    }
}
