import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Huge pages for which the kernel answers `EEXIST`: they are there, or the pool is empty.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct HugePagePoolTests {
    private static let size = PageSize.twoMiB.bytes
    private static let options = RegionOptions(
        pageSize: .twoMiB, failure: FailurePolicy(retries: 1, backOff: .microseconds(100)))

    /// Maps pages until there are no more.
    private static func emptyPool() {
        while let page = try? Mapping(anonymous: size, hugePages: .twoMiB) { page.release().store(1, at: 0) }
    }

    /// Nobody was waiting for the pages who could come back.
    @Test(.requiresHugePages(1), arguments: [false, true])
    func pagesWithoutAPoolAreNotLoaded(isShared: Bool) async {
        await #expect(processExitsWith: .signal(SIGBUS)) { [isShared] in
            let range = try Mapping(
                anonymous: 2 * Self.size, sharing: isShared ? .shared : .private, hugePages: .twoMiB,
                options: .noReserve
            ).release()
            let last = try Mapping(anonymous: Self.size, hugePages: .twoMiB)
            Self.emptyPool()
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            let region = try pager.add(range, options: Self.options)
            try pager.start()
            do throws(PagerError) {
                try pager.populate(region)
                exit(2)
            } catch {
                guard case .pagesFailed = error else { exit(3) }
            }
            try pager.stop(.poison)
            // There are pages again, and nobody who serves: zeros would be read.
            try last.unmap()
            _ = Toucher.value { range.loadWord(0) &+ range.loadWord(Self.size) }
        }
    }

    /// A page that the file has and that is not mapped takes poison, and must not.
    @Test(.requiresHugePages(2))
    func aPageOfTheFileIsKept() throws {
        let file = try Memfd(count: 2 * Self.size, hugePages: .twoMiB)
        let other = try Mapping(file)
        let client = try Mapping(file)
        let range = client.range
        for page in 0..<2 { other.range.store(UInt8(page + 1), at: page * Self.size) }
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try pager.add(range, options: Self.options)
        try pager.start()
        #expect(Toucher.value { range.load(0) } == 1)
        try pager.populate(region)
        try pager.stop(.poison)
        #expect(Toucher.value { range.load(Self.size) } == 2)
        #expect(pager.settledStatistics.failures == 0)
        extendLifetime(other)
    }

    /// Poison is what tells that such a page is there.
    @Test(.requiresHugePages(2))
    func aPageThatIsThereIsKept() throws {
        let mapping = try Mapping(anonymous: 2 * Self.size, hugePages: .twoMiB)
        let range = mapping.range
        range.store(7, at: Self.size)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try pager.add(range, options: Self.options)
        try pager.start()
        try pager.populate(region)
        try pager.stop(.poison)
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
        #expect(Toucher.value { range.load(Self.size) } == 7)
        #expect(pager.settledStatistics.failures == 0)
    }

    /// A page of no region, which was to be zeros.
    @Test(.requiresHugePages(1), arguments: [false, true])
    func strayPagesWithoutAPoolAreLost(isInThread: Bool) async {
        await #expect(processExitsWith: .signal(SIGBUS)) { [isInThread] in
            alarm(20)
            let range = try Mapping(anonymous: Self.size, hugePages: .twoMiB, options: .noReserve).release()
            Self.emptyPool()
            let uffd = try UserfaultFD(features: isInThread ? .sigbus : [])
            let second = try uffd.duplicate()
            _ = try second.register(range, modes: .missing)
            let pager = try Pager(
                uffd, source: NumberedSource(), configuration: PagerConfiguration(strays: .zeros))
            try pager.start()
            _ = Toucher.value { range.loadWord(pageBytes) }
            extendLifetime(second)
        }
    }
}
