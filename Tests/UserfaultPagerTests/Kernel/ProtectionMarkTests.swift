import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Marks of write protection on pages that are not there, for which the kernel answers poison as if they were.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ProtectionMarkTests {
    private static let features: UserfaultFD.Features = [.writeProtect, .writeProtectHugetlbfsShmem]
    private static let options = RegionOptions(
        readAhead: .none, failure: FailurePolicy(retries: 1, backOff: .microseconds(100)), writeProtected: true)

    /// A page of a file that was loaded, was dropped, and can be loaded no more.
    @Test
    func aPageThatWasDroppedIsLost() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(20)
            let range = try Mapping(Memfd(count: 2 * pageBytes)).release()
            let pager = try Pager(UserfaultFD(features: Self.features), source: CountedSource(failsAfter: 1))
            try pager.add(range, options: Self.options)
            try pager.start()
            guard Toucher.value({ range.loadWord(0) }) == NumberedSource.word(0) else { exit(2) }
            // The mark stays.
            try AddressSpace.advise(.remove, range.part(at: 0, count: pageBytes))
            _ = Toucher.value { range.loadWord(0) }
        }
    }

    /// Nobody is shown zeros when the pager has gone.
    @Test
    func pagesThatWereNeverLoadedAreLost() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let range = try Mapping(Memfd(count: 4 * pageBytes)).release()
            let uffd = try UserfaultFD(features: Self.features)
            let second = try uffd.duplicate()
            let pager = try Pager(uffd, source: NumberedSource())
            try pager.add(range, options: Self.options)
            try pager.start()
            try second.writeProtect(range, .protect)
            try pager.stop(.poison)
            guard pager.statistics.pagesPoisoned == 4 else { exit(2) }
            _ = Toucher.value { range.loadWord(2 * pageBytes) }
        }
    }

    /// One that is there is kept, and what is written to it from then on is told.
    @Test
    func aPageThatIsThereIsKept() throws {
        let file = try Memfd(count: 2 * pageBytes)
        let mapping = try Mapping(file)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(features: Self.features), source: CountedSource(failsAfter: 0))
        let region = try pager.add(range, options: Self.options)
        try pager.start()
        // It comes while the source fails: as if another had filled it.
        let gate = pager.core.memories[0]
        try gate.withDescriptor { (uffd) throws(UserfaultError) in
            _ = try uffd.zeropage(range.part(at: pageBytes, count: pageBytes))
            try uffd.writeProtect(range.part(at: pageBytes, count: pageBytes), .protect)
        }
        #expect(throws: PagerError.self) { try pager.populate(region) }
        #expect(Toucher.value { range.load(pageBytes) } == 0)
        range.store(3, at: pageBytes)
        #expect(try pager.takeWritten(of: region) == [pageBytes])
        try pager.stop(.poison)
        #expect(range.load(pageBytes) == 3)
    }
}
