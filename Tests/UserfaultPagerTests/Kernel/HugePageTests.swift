import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct HugePageTests {
    private static let size = PageSize.twoMiB.bytes
    /// In the first huge page, in the second where the file ends, behind its end, and in a page that it does not reach.
    private static let offsets = [
        0, 511 * pageBytes, size, size + pageBytes, size + 2 * pageBytes, 2 * size, 3 * size - 8,
    ]
    private static let options = RegionOptions(pageSize: .twoMiB, failure: .poisonAtOnce)

    /// What a source of a file of one huge page and a bit serves.
    private static func check<Source: PageSource & ~Copyable>(_ source: consuming Source) throws -> PagerStatistics {
        let mapping = try Mapping(anonymous: 3 * size, hugePages: .twoMiB)
        let pager = try Pager(UserfaultFD(), source: source)
        try pager.add(mapping.range, options: options)
        try pager.start()
        let range = mapping.range
        let found = Toucher.value { offsets.map { range.loadWord($0) } }
        #expect(found == offsets.map { $0 <= size + pageBytes ? NumberedSource.word($0) : 0 })
        try pager.stop(.poison)
        return pager.statistics
    }

    private static func file() throws -> Memfd { try numberedFile(pages: 514, bytes: size + pageBytes + 100) }

    /// The kernel fills whole huge pages only.
    @Test(.requiresHugePages(1))
    func basePagesOfHugePagesAreRefused() throws {
        let mapping = try Mapping(anonymous: Self.size, hugePages: .twoMiB)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        #expect(throws: PagerError.badPageSize(pageBytes)) { try pager.add(range) }
        // What was refused is not registered.
        try pager.add(range, options: Self.options)
    }

    @Test(.requiresHugePages(3))
    func aFileIsReadInHugePages() throws {
        let statistics = try Self.check(FileSource(adopting: Self.file().release()))
        #expect(statistics.pagesCopied == 2)
        #expect(statistics.pagesZeroed == 1)
    }

    @Test(.requiresHugePages(3))
    func aMappedFileIsCopiedInHugePages() throws {
        let file = try Self.file()
        let statistics = try Self.check(file.withUnsafeDescriptor { file throws in try MappedFileSource(file) })
        #expect(statistics.pagesCopied == 2)
        #expect(statistics.pagesZeroed == 1)
    }

    @Test(.requiresHugePages(3))
    func aFileThatIsCutDeliversNoPartOfAHugePage() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let descriptor = try Self.file().release()
            let source = try FileSource(adopting: descriptor)
            _ = ftruncate(descriptor, Self.size + pageBytes)
            _ = try Self.check(source)
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let file = try Self.file()
            let source = try file.withUnsafeDescriptor { file throws in try MappedFileSource(file) }
            try file.resize(to: Self.size + pageBytes)
            _ = try Self.check(source)
        }
    }

    @Test(.requiresHugePages(3))
    func zerosAreHugePages() throws {
        let size = Self.size
        let mapping = try Mapping(anonymous: 3 * size, hugePages: .twoMiB)
        let pager = try Pager(UserfaultFD(), source: ZeroSource())
        try pager.add(mapping.range, options: Self.options)
        try pager.start()
        let range = mapping.range
        #expect(Toucher.value { (0..<3).map { range.loadWord($0 * size + 8) } } == [0, 0, 0])
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesZeroed == 3)
        #expect(pager.settledStatistics.bytesFilled == UInt64(3 * size))
    }

    @Test(.requiresHugePages(2))
    func hugePagesAreShared() throws {
        let size = Self.size
        let file = try Memfd(count: 2 * size, hugePages: .twoMiB)
        let pages = try SharedPages(file, from: NumberedSource())
        let offsets = [0, size - pageBytes, size, 2 * size - pageBytes]
        for _ in 0..<2 {
            let client = try Mapping(file)
            let pager = try Pager(UserfaultFD(), source: pages.source)
            try pager.add(client.range, options: Self.options)
            try pager.start()
            let range = client.range
            let found = Toucher.value { offsets.map { range.loadWord($0) } }
            #expect(found == offsets.map { NumberedSource.word($0) })
            try pager.stop(.poison)
            #expect(pager.settledStatistics.pagesContinued == 2)
            #expect(pager.settledStatistics.bytesFilled == UInt64(2 * size))
        }
        let client = try Mapping(file)
        client.range.store(7, at: size + 1)
        // What a client dropped is made again, and what one wrote is kept.
        try file.punchHole(at: 0, count: size)
        pages.source.forget(offset: 0, count: 2 * size)
        #expect(try ask(pages.source, at: 0, count: 2 * size).reply == .inFile(count: 2 * size))
        #expect(client.range.loadWord(size - pageBytes) == NumberedSource.word(size - pageBytes))
        #expect(client.range.load(size + 1) == 7)
    }

    /// What a user may decide about a fault of no region.
    enum Stray: String, CaseIterable, Codable {
        case zeros, poison, killOwner, ask, waits, waitsUntilTheEnd

        var policy: StrayPolicy {
            switch self {
            case .zeros: .zeros
            case .poison: .poison
            case .killOwner: .killOwner
            case .ask: .ask { _ in .zeros }
            case .waits, .waitsUntilTheEnd: .wait
            }
        }

        /// The signal that ends the process, if any does.
        var signal: CInt? {
            switch self {
            case .zeros, .ask, .waits: nil
            case .poison, .waitsUntilTheEnd: SIGBUS
            case .killOwner: SIGKILL
            }
        }
    }

    @Test(.requiresHugePages(2), arguments: Stray.allCases)
    func straysOfHugePagesAreDecided(stray: Stray) async {
        await #expect(processExitsWith: stray.signal.map { .signal($0) } ?? .success) { [stray] in
            alarm(20)
            let range = try Mapping(anonymous: 2 * Self.size, hugePages: .twoMiB).release()
            let uffd = try UserfaultFD()
            // It stays open, as a guardian's.
            let second = try uffd.duplicate()
            _ = try uffd.register(range, modes: .missing)
            let pager = try Pager(
                uffd, source: NumberedSource(), configuration: PagerConfiguration(strays: stray.policy))
            try pager.start()
            let toucher = Toucher { range.loadWord(Self.size + pageBytes) }
            if stray == .waits || stray == .waitsUntilTheEnd {
                guard wait(until: { pager.core.memories[0].kept.withLock { $0.count } == 1 }) else { exit(2) }
                if stray == .waits { try pager.setStrayPolicy(.zeros) } else { try pager.stop(.poison) }
            }
            guard toucher.value() == 0 else { exit(3) }
            try pager.stop(.leaveZeros)
            guard range.load(2 * Self.size - 1) == 0 else { exit(5) }
            extendLifetime(second)
        }
    }
}
