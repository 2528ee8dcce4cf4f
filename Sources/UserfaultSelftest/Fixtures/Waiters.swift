package import UserfaultFD

/// What makes an access wait, with all that is needed to have it so: every kind of fault, driven alike.
extension PageFault.Kind {
    /// The kinds that a memory type can have on a kernel with these features.
    package static func lawful(on memory: MemoryType, _ features: UserfaultFD.Features) -> [PageFault.Kind] {
        [.missing, .minor, .writeProtect, .readWriteProtect].filter { $0.modes.areLawful(on: memory, features) }
    }

    package var modes: UserfaultFD.RegisterModes {
        switch self {
        case .missing: .missing
        case .minor: .minor
        case .writeProtect: .writeProtect
        case .readWriteProtect: .readWriteProtect
        }
    }

    /// The features that a descriptor must enable.
    package var features: UserfaultFD.Features { self == .readWriteProtect ? .readWriteProtect : [] }

    /// What the message about ``touch(_:_:)`` must say.
    package var flags: PageFault.Flags {
        switch self {
        case .missing: []
        case .minor: .minor
        case .writeProtect: [.write, .writeProtect]
        case .readWriteProtect: .readWriteProtect
        }
    }

    /// Registers pages so that ``touch(_:_:)`` of each waits.
    package func arm(_ area: Area, _ pages: Range<Int>, with uffd: borrowing UserfaultFD) throws {
        for page in pages {
            switch self {
            case .missing: break
            case .minor: try area.fillFile(page)
            case .writeProtect, .readWriteProtect:
                Pattern.write(seed: 0, page: page, at: area.address(page), count: area.pageSize.bytes)
            }
        }
        try uffd.register(area.pages(pages), modes: modes)
        switch self {
        case .missing, .minor: break
        case .writeProtect: try uffd.writeProtect(area.pages(pages), .protect)
        case .readWriteProtect: try uffd.rwProtect(area.pages(pages), .protect)
        }
    }

    /// Where in its page an access is: not at the start, so that the message's address is seen to be the page's.
    package static let offset: UInt = 0x128

    /// An access that waits for a page.
    package func touch(_ area: Area, _ page: Int) throws -> Touch {
        let address = area.address(page) + Self.offset
        return self == .writeProtect ? try Touch.write(address, 0xEE) : try Touch.read(address)
    }

    /// Resolves the fault of a page with its pattern.
    package func resolve(_ area: Area, _ page: Int, with uffd: borrowing UserfaultFD, wakes: Bool = true) throws {
        switch self {
        case .missing:
            try uffd.copy(from: area.source(page..<page + 1), to: area.page(page), options: wakes ? [] : .doNotWake)
        case .minor: try uffd.continue(area.page(page), options: wakes ? [] : .doNotWake)
        case .writeProtect: try uffd.writeProtect(area.page(page), wakes ? .unprotect : .unprotectWithoutWaking)
        case .readWriteProtect: try uffd.rwProtect(area.page(page), wakes ? .unprotect : .unprotectWithoutWaking)
        }
    }

    /// The byte that ``touch(_:_:)`` reads or writes once the fault is resolved.
    package func byte(_ page: Int) -> UInt8 {
        self == .writeProtect
            ? 0xEE : UInt8(truncatingIfNeeded: Pattern.word(seed: 0, page: page, index: Int(Self.offset) / 8))
    }

    /// The byte where nobody resolves and memory becomes ordinary again.
    package func byteUnresolved(_ page: Int) -> UInt8 { self == .missing ? 0 : byte(page) }
}

/// Threads that wait for pages, one for each, asleep, with their messages read.
package struct Waiters: ~Copyable {
    package let kind: PageFault.Kind
    private let area: Area
    private var touches: [(page: Int, touch: Touch)] = []

    package init(_ kind: PageFault.Kind, _ area: Area, _ pages: [Int], of uffd: borrowing UserfaultFD) throws {
        self.kind = kind
        self.area = area
        let before = try uffd.status().total
        for page in pages {
            let touch = try kind.touch(area, page)
            try uffd.expectFault(at: area.address(page), kind.flags)
            touches.append((page, touch))
        }
        for (_, touch) in touches { try touch.thread.waitAsleep() }
        try uffd.expectWaiters(pending: 0, total: before + pages.count, "with \(pages.count) more waiters")
    }

    /// Fails if a thread has gone on, or has faulted anew: what no wake-up of other pages may bring about.
    package func expectAsleep(
        _ uffd: borrowing UserfaultFD, _ why: String, file: String = #fileID, line: Int = #line
    ) throws {
        for (page, touch) in touches {
            try touch.thread.expectStillAsleep("page \(page), \(kind), \(why)", file: file, line: line)
        }
        try uffd.expectNoMessage("nobody was woken: \(kind), \(why)", file: file, line: line)
    }

    /// Waits until the threads that waited for these pages, or for all, have made their access.
    package mutating func finish(
        _ why: String, pages: Set<Int>? = nil, resolved: Bool = true, file: String = #fileID, line: Int = #line
    ) throws {
        for (page, touch) in touches where pages?.contains(page) ?? true {
            let byte = resolved ? kind.byte(page) : kind.byteUnresolved(page)
            try touch.finish(with: byte, "the \(kind) waiter of page \(page) goes on: \(why)", file: file, line: line)
        }
        touches.removeAll { pages?.contains($0.page) ?? true }
    }

    /// Fails unless each thread faults anew, and sleeps again.
    package func expectRepeated(_ uffd: borrowing UserfaultFD, file: String = #fileID, line: Int = #line) throws {
        var pages: Set<UInt> = []
        for _ in touches {
            guard case .pagefault(let fault) = try uffd.expectMessage("the repeated fault", file: file, line: line)
            else { throw CaseFailure(expected: "a page fault", seen: "another event", file: file, line: line) }
            try expectEqual(fault.flags, kind.flags, "flags of the repeated fault", file: file, line: line)
            pages.insert(fault.address)
        }
        try expectEqual(
            pages, Set(touches.map { area.address($0.page) }), "pages faulted anew", file: file, line: line)
        for (_, touch) in touches { try touch.thread.waitAsleep(file: file, line: line) }
    }
}

extension [MemoryType] {
    /// One of each implementation of faults in the kernel.
    package static var eachKind: Self { [.anon, .shmem, .shmemPrivate, .hugetlb] }
}
