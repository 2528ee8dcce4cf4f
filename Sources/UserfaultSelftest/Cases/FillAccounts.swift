import Glibc
import SystemPackage
import UserfaultFD

/// What the fills add to the kernel's accounts.
enum FillAccountCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-resident", on: .smallPages,
            "each fill counts its pages as what they are, anonymous or shmem, until they are unmapped",
            requires: [.missingFaults], covers: [.continueResident, .residentMemory]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context, pages: pages)
                defer { trial.end() }
                let area = trial.area
                let base = Accounting()
                func expectCounted(_ anonymous: Int, _ shmem: Int, _ when: String) throws {
                    let now = Accounting()
                    let page = PageSize.base.bytes / 1024
                    // The counters are approximate on many kernels, and the program pages its own code in; half is wrong.
                    for (name, change, right) in [
                        ("RssAnon", now.residentAnonymous - base.residentAnonymous, anonymous * page),
                        ("RssShmem", now.residentShmem - base.residentShmem, shmem * page),
                        ("RssFile", now.residentFile - base.residentFile, 0),
                    ] {
                        try expect(
                            abs(change - right) < pages * page / 2, "\(name) is \(right) KiB more \(when)",
                            seen: "\(change) KiB more")
                    }
                }
                try expectEqual(trial.fill(0..<pages), trial.done(pages), "\(call)")
                let (anonymous, shmem) = kinds(call, context.memory)
                try expectCounted(anonymous, shmem, "after \(call)")
                let account = try MappingAccount(holding: area.range.start)
                let page = PageSize.base.bytes / 1024
                try expectEqual(
                    account["Rss"], (anonymous + shmem) * page, "Rss of the view in smaps after \(call), KiB")
                try expectEqual(
                    account["Anonymous"], anonymous * page, "Anonymous of the view in smaps after \(call), KiB")

                if call == .continue && context.memory.isPrivate {
                    for index in 0..<pages { Touch.store(area.address(index), 1) }
                    try expectCounted(pages, 0, "after every page was written, and so copied")
                }
                try AddressSpace.unmap(area.range)
                try expectCounted(0, 0, "after munmap")
            }
        },
        SelftestCase(
            "fill-huge-resident", on: .allHugetlb,
            "COPY and CONTINUE count their huge pages in HugetlbPages, until they are unmapped",
            requires: [.missingFaults], covers: [.continueResident, .residentMemory]
        ) { context in
            func hugetlbPages() -> Int { ProcFile.number("HugetlbPages", in: "/proc/self/status") ?? 0 }
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let base = hugetlbPages()
                try expectEqual(trial.fill(1..<3), trial.done(2), "\(call)")
                let added = call == .poison ? 0 : 2 * trial.area.pageSize.bytes / 1024
                try expectEqual(hugetlbPages() - base, added, "HugetlbPages more after \(call), KiB")
                try expectEqual(trial.fill(1..<3), .failed(.fileExists), "\(call) repeated")
                try expectEqual(hugetlbPages() - base, added, "HugetlbPages more after the refused \(call), KiB")
                try AddressSpace.unmap(trial.area.range)
                try expectEqual(hugetlbPages(), base, "HugetlbPages after munmap, KiB")
            }
        },
        SelftestCase(
            "fill-frames", on: .smallPages,
            "a filled page has the map count and the flags of a page that an access has made",
            requires: [.missingFaults, .pageFrames], covers: [.continueExists, .continueResident, .residentMemory]
        ) { context in
            let count = 128
            for call in try FillCall.working(on: context.memory) where call != .poison {
                if call == .zeropage && context.memory.isPrivate { continue }
                let trial = try FillTrial(call, context, pages: count)
                defer { trial.end() }
                try expectEqual(trial.fill(0..<count), trial.done(count), "\(call)")
                let isAnonymous = context.memory.isPrivate && call == .copy
                var listed = 0
                for page in 0..<count {
                    let frame = try PageFrame(of: trial.area.address(page))
                    // What is continued is mapped by the alias already.
                    try expectEqual(
                        frame.mapCount, call == .continue ? 2 : 1, "map count of page \(page) after \(call)")
                    let right: PageFrame.Flags =
                        isAnonymous ? [.upToDate, .swapBacked, .anonymous] : [.upToDate, .swapBacked]
                    let looked: PageFrame.Flags = [.upToDate, .swapBacked, .anonymous, .hardwarePoison]
                    try expectEqual(frame.flags.intersection(looked), right, "flags of page \(page) after \(call)")
                    if frame.flags.contains(.lru) { listed += 1 }
                }
                // Each processor holds some pages back before it puts them on the list.
                try expect(
                    listed >= count / 2, "the pages are on a list for reclaim after \(call)", seen: "\(listed) are")
            }
        },
        SelftestCase(
            "fill-charge", on: [.anon, .shmem, .shmemPrivate],
            "the pages that COPY and ZEROPAGE make are charged to the memory control group for as long as they are",
            requires: [.missingFaults, .memoryGroup], covers: [.exhaustion, .continueResident]
        ) { context in
            try context.joinMemoryGroup(limit: 256 << 20)
            for call in try FillCall.working(on: context.memory) where call == .copy || call == .zeropage {
                if call == .zeropage && context.memory.isPrivate { continue }
                let trial = try FillTrial(call, context, pages: pages)
                defer { trial.end() }
                let base = current()
                try expectEqual(trial.fill(0..<pages), trial.done(pages), "\(call)")
                let added = current() - base
                // Charges are taken in batches.
                try expect(
                    added > trial.area.range.count * 3 / 4,
                    "the group is charged \(trial.area.range.count) bytes for \(call)",
                    seen: "\(added) bytes more")
                // What a call has made before it is refused goes away again.
                for page in 0..<pages {
                    try expectEqual(trial.fill(page..<page + 1), .failed(.fileExists), "\(call) repeated")
                }
                let afterRefusals = current() - base
                try expect(
                    afterRefusals < trial.area.range.count * 5 / 4, "\(call) that is refused leaves nothing charged",
                    seen: "\(afterRefusals) bytes more after filling \(trial.area.range.count)")
                try AddressSpace.unmap(trial.area.range)
                try trial.area.file?.resize(to: 0)
                let left = current() - base
                try expect(
                    left < trial.area.range.count / 4, "what \(call) was charged is given back when its pages are gone",
                    seen: "\(left) bytes more than before")
            }
        },
        SelftestCase(
            "copy-failing-charge", on: [.anon, .shmem, .shmemPrivate],
            "a COPY that fails after its source had to be brought in leaves no page behind, however often",
            requires: [.missingFaults, .memoryGroup], covers: [.exhaustion, .copySources]
        ) { context in
            try context.joinMemoryGroup(limit: 256 << 20)
            let trial = try FillTrial(.copy, context)
            defer { trial.end() }
            let page = PageSize.base.bytes
            // A page of a file that is not in the page table: the kernel gives up what it has begun to bring it in.
            let file = try Memfd(name: "source", count: page)
            let source = try Mapping(file)
            Touch.store(source.range.start, 1)
            try trial.uffd.raw(.copy, trial.area.page(0), source: source.range.start).expectDone(page)
            let unreadable = try Mapping(anonymous: page, protection: .none)
            let outside = try Mapping(anonymous: page)
            let failures: [(name: String, to: AddressRange, from: UInt, errno: Errno)] = [
                ("onto a page that is there", trial.area.page(0), source.range.start, .fileExists),
                ("to memory that is not registered", outside.range, source.range.start, .noSuchFileOrDirectory),
                ("from memory that cannot be read", trial.area.page(1), unreadable.range.start, .badAddress),
            ]
            for (name, to, from, errno) in failures {
                let before = current()
                for _ in 0..<pages {
                    try source.advise(.dontNeed)
                    try expectEqual(trial.uffd.raw(.copy, to, source: from), .failed(errno), "COPY \(name)")
                }
                let added = current() - before
                // Charges are taken in batches; a page for each call would be 8 MiB.
                try expect(
                    added < pages * page / 4, "\(pages) times COPY \(name) leaves nothing charged",
                    seen: "\(added) bytes more")
            }
        },
        SelftestCase(
            "copy-failing-huge", on: .allHugetlb,
            "a COPY of a huge page that fails, for whatever reason, gives back page and reservation",
            requires: [.missingFaults, .privateHugetlbfs], covers: [.exhaustion]
        ) { context in
            let count = 4
            let directory = try context.mountPrivateHugetlbfs(pages: 2 * count)
            let area = try Area(context, directory: directory, reserves: true)
            let size = area.pageSize.bytes
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .missing)
            let free = { try area.fileSystem()!.freeBlocks }
            let source = try area.source(0..<1)
            let unreadable = try Mapping(anonymous: size, protection: .none)
            try uffd.raw(.copy, area.page(0), source: source.range.start).expectDone(size)
            let before = try free()
            // Without a page table for its source, the kernel begins anew with a page that it has kept.
            let file = try Memfd(name: "source", count: size)
            let absent = try Mapping(file)
            Touch.store(absent.range.start, 1)
            for _ in 0..<8 {
                try absent.advise(.dontNeed)
                for (name, page, from, errno) in [
                    ("onto a page that is there", 0, source.range.start, Errno.fileExists),
                    ("onto a page that is there, from one that is not", 0, absent.range.start, .fileExists),
                    ("from memory that cannot be read", 1, unreadable.range.start, .badAddress),
                ] {
                    try expectEqual(uffd.raw(.copy, area.page(page), source: from), .failed(errno), "COPY \(name)")
                    try expectEqual(free(), before, "free huge pages after COPY \(name)")
                }
            }
            // Nobody has taken what was reserved: every page can be had.
            for page in 1..<count {
                try absent.advise(.dontNeed)
                try uffd.raw(.copy, area.page(page), source: absent.range.start).expectDone(size)
            }
            try AddressSpace.unmap(area.range)
            try AddressSpace.unmap(AddressRange(start: area.aliasAddress(0), count: area.range.count))
            try area.file!.resize(to: 0)
            try expectEqual(free(), UInt64(2 * count), "free huge pages in the end")
        },
    ]

    private static let pages = 2048

    /// How many of the resident pages are anonymous, and how many shmem, after a call.
    private static func kinds(_ call: FillCall, _ memory: MemoryType) -> (anonymous: Int, shmem: Int) {
        switch call {
        case .copy: memory.isPrivate ? (pages, 0) : (0, pages)
        case .continue: (0, pages)
        case .zeropage: memory.isPrivate ? (0, 0) : (0, pages)
        default: (0, 0)
        }
    }

    /// What the memory control group of this process is charged, in bytes.
    private static func current() -> Int {
        let group = getenv(MemoryGroups.variable).map { String(cString: $0) } ?? ""
        // The names of version 2 and of version 1.
        return ["memory.current", "memory.usage_in_bytes"].lazy
            .compactMap { ProcFile.line("\(group)/\($0)").flatMap { Int($0) } }.first ?? 0
    }
}
