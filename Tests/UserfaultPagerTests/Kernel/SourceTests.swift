import Glibc
import SystemPackage
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct SourceTests {
    static let pages = [0, 1, 2, 3, 7, 8, 15, 20]
    /// The file ends in the middle of page 15.
    static let expected = pages.map { $0 < 16 ? NumberedSource.word($0 * pageBytes) : 0 }

    private func descriptor(_ file: consuming Memfd) -> Int32 { file.release() }

    @Test
    func fileIsReadAndPaddedWithZeros() throws {
        let file = try numberedFile(pages: 16, bytes: 15 * pageBytes + 100)
        let found = try words(of: FileSource(adopting: descriptor(file)), at: Self.pages, count: 32) {
            try Mapping(anonymous: 32 * pageBytes)
        }
        #expect(found == Self.expected)
    }

    /// Files of sysfs have a size, and answer a page at a time however much is asked for.
    @Test(.enabled("the kernel has no /sys/kernel/btf/vmlinux") { access("/sys/kernel/btf/vmlinux", R_OK) == 0 })
    func aFileThatIsReadInPartsIsReadOn() throws {
        let descriptor = open("/sys/kernel/btf/vmlinux", O_RDONLY)
        let pages = Array(0..<32)
        let expected = pages.map { page -> UInt64 in
            var word: UInt64 = 0
            return pread(descriptor, &word, 8, off_t(page * pageBytes)) == 8 ? word : 0
        }
        var most = [UInt8](repeating: 0, count: 16 * pageBytes)
        try #require(pread(descriptor, &most, most.count, 0) < most.count)
        let options = RegionOptions(readAhead: .adaptive(maximumPages: 16))
        let found = try words(of: FileSource(adopting: descriptor), at: pages, count: 32, options: options) {
            try Mapping(anonymous: 32 * pageBytes)
        }
        #expect(found == expected)
    }

    @Test
    func mappedFileIsCopiedFromWhereItIs() throws {
        let file = FileDescriptor(rawValue: descriptor(try numberedFile(pages: 16, bytes: 15 * pageBytes + 100)))
        let found = try words(of: MappedFileSource(file), at: Self.pages, count: 32) {
            try Mapping(anonymous: 32 * pageBytes)
        }
        try file.close()
        #expect(found == Self.expected)
    }

    @Test
    func bytesAreCopiedFromWhereTheyAre() throws {
        let bytes = (0..<16).flatMap { page in
            [NumberedSource.word(page * pageBytes)] + [UInt64](repeating: 0, count: page < 15 ? 511 : 3)
        }
        let found = try words(of: BytesSource(bytes.span.bytes), at: Self.pages, count: 32) {
            try Mapping(anonymous: 32 * pageBytes)
        }
        #expect(found == Self.expected)
    }

    @Test
    func closureSaysWhatEachPageIs() throws {
        let source = ClosureSource<Never> { offset, pages in
            offset >= 16 * pageBytes ? .zero : NumberedSource().load(offset: offset, into: &pages)
        }
        // No read-ahead: the answer of this closure is not the same for all pages that it may be asked for.
        let found = try words(
            of: source, at: Self.pages, count: 32, options: RegionOptions(readAhead: .none)
        ) { try Mapping(anonymous: 32 * pageBytes) }
        #expect(found == Self.expected)
    }

    @Test(arguments: [Mapping.Sharing.shared, .private])
    func sharedPagesAreMadeOnceForAllClients(sharing: Mapping.Sharing) throws {
        let file = try Memfd(count: 32 * pageBytes)
        let pages = try SharedPages(file, from: NumberedSource())
        let first = try Mapping(file, sharing: sharing)
        let second = try Mapping(file, sharing: sharing)
        let pagers = try [first.range, second.range].map { range in
            let pager = try Pager(UserfaultFD(), source: pages.source)
            try pager.add(range)
            try pager.start()
            return pager
        }
        for range in [first.range, second.range] {
            let found = Toucher.value { (0..<32).map { range.loadWord($0 * pageBytes) } }
            #expect(found == (0..<32).map { NumberedSource.word($0 * pageBytes) })
        }
        for pager in pagers {
            try pager.stop(.poison)
            #expect(pager.settledStatistics.pagesContinued == 32)
            #expect(pager.statistics.pagesCopied == 0)
        }
    }

    /// Of a long window the page that is waited for is loaded by itself, and what comes behind it after its thread goes on.
    @Test
    func theUrgentPageComesFirst() throws {
        let mapping = try Mapping(anonymous: 1024 * pageBytes)
        let asked = Shared(Mutex<[Range<Int>]>([]))
        let pager = try Pager(
            UserfaultFD(),
            source: ClosureSource<Never> { offset, pages in
                let first = offset / pageBytes
                asked.value.withLock { $0.append(first..<first + pages.freeCapacity / pageBytes) }
                return NumberedSource().load(offset: offset, into: &pages)
            })
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        #expect(
            Toucher.value {
                (0..<1024).allSatisfy { range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) }
            } == true)
        try pager.stop(.poison)
        let loads = asked.value.withLock { $0 }
        let long = loads.indices.filter { loads[$0].count >= 32 }
        #expect(!long.isEmpty)
        for index in long { #expect(loads[index - 1] == loads[index].lowerBound - 1..<loads[index].lowerBound) }
    }
}
