import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Mappings that grow, whose new pages are served in the threads that fault.
///
/// Each test has a process of its own: `SIGBUS` is the process's.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadGrowthTests {
    /// Has memory grow in place whose first pages are a region's.
    private static func grow(_ range: AddressRange, from pages: Int) throws {
        // Room that nobody else takes meanwhile.
        try AddressSpace.unmap(range.dropFirst(pages * pageBytes))
        var mapping = Mapping(adopting: range.part(at: 0, count: pages * pageBytes))
        try mapping.remap(count: range.count)
        #expect(mapping.release() == range)
    }

    /// A large `realloc`, in place.
    @Test
    func aMappingThatGrowsIsZeros() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let range = try Mapping(anonymous: 2048 * pageBytes).release()
            let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            try pager.add(range.part(at: 0, count: 16 * pageBytes), options: RegionOptions(readAhead: .none))
            try InThreadGrowthTests.grow(range, from: 16)
            for page in 0..<2048 {
                #expect(range.loadWord(page * pageBytes) == (page < 16 ? NumberedSource.word(page * pageBytes) : 0))
            }
            #expect(pager.statistics.strayFaults == 0)
            try pager.stop(.poison)
            #expect(pager.statistics.pagesPoisoned == 0)
        }
    }

    /// Memory that has come can be fetched for the kernel, before anybody has touched it.
    @Test
    func whatHasGrownIsFetched() async {
        await #expect(processExitsWith: .success) {
            alarm(20)
            let range = try Mapping(anonymous: 64 * pageBytes).release()
            let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            try pager.add(range.part(at: 0, count: 16 * pageBytes), options: RegionOptions(readAhead: .none))
            try InThreadGrowthTests.grow(range, from: 16)
            let sink = try Memfd(count: range.count)
            try pager.withPagesPresent(range) {
                guard sink.take(range) == range.count else { exit(2) }
            }
            guard range.loadWord(63 * pageBytes) == 0, pager.statistics.strayFaults == 0 else { exit(3) }
        }
    }

    /// Memory that has come and that nobody has touched goes with its region.
    @Test(arguments: [true, false])
    func whatHasGrownIsLetGo(isInThread: Bool) async {
        await #expect(processExitsWith: .success) { [isInThread = isInThread as Bool] in
            alarm(20)
            let range = try Mapping(anonymous: 2048 * pageBytes).release()
            let pager = try Pager(UserfaultFD(features: isInThread ? .sigbus : []), source: NumberedSource())
            let options = RegionOptions(readAhead: .none)
            let region = try pager.add(range.part(at: 0, count: 16 * pageBytes), options: options)
            try pager.start()
            try InThreadGrowthTests.grow(range, from: 16)
            try pager.remove(region, .populate)
            for page in stride(from: 0, to: 2048, by: 7) {
                let expected = page < 16 ? NumberedSource.word(page * pageBytes) : 0
                guard range.loadWord(page * pageBytes) == expected else { exit(3) }
            }
            // Its children have it, too.
            let child = inFork { range.loadWord(2000 * pageBytes) == 0 ? 0 : 1 }
            guard child == 0, pager.statistics.strayFaults == 0 else { exit(4) }
            try pager.stop(.poison)
        }
    }

    /// What has come may be read first, or written at once, and is protected when it comes.
    @Test(arguments: [true, false])
    func aProtectedRegionThatGrowsIsWritten(isReadBefore: Bool) async {
        await #expect(processExitsWith: .success) { [isReadBefore = isReadBefore as Bool] in
            alarm(20)
            let range = try Mapping(anonymous: 64 * pageBytes).release()
            let pager = try Pager(UserfaultFD(features: [.sigbus, .writeProtect]), source: NumberedSource())
            let options = RegionOptions(readAhead: .none, writeProtected: true)
            try pager.add(range.part(at: 0, count: 16 * pageBytes), options: options)
            try InThreadGrowthTests.grow(range, from: 16)
            for page in 16..<64 {
                if isReadBefore { #expect(range.load(page * pageBytes) == 0) }
                for value in 1...3 as ClosedRange<UInt8> {
                    range.store(value, at: page * pageBytes)
                    #expect(range.load(page * pageBytes) == value)
                }
            }
            try pager.stop(.poison)
        }
    }

    /// What has come is in the file already: another mapping has written it.
    @Test(arguments: [true, false])
    func aRegionThatGrowsOverAFileIsTheFile(isShared: Bool) async {
        await #expect(processExitsWith: .success) { [isShared] in
            alarm(20)
            let file = try Memfd(count: 64 * pageBytes)
            let pages = try SharedPages(file, from: NumberedSource())
            let range = try Mapping(file, sharing: isShared ? .shared : .private).release()
            let other = try Mapping(file).release()
            for page in 8..<48 { other.store(7, at: page * pageBytes) }
            let pager = try Pager(UserfaultFD(features: .sigbus), source: pages.source)
            try pager.add(range.part(at: 0, count: 8 * pageBytes), options: RegionOptions(readAhead: .none))
            try InThreadGrowthTests.grow(range, from: 8)
            for page in 8..<64 { #expect(range.load(page * pageBytes) == (page < 48 ? 7 : 0)) }
            range.store(9, at: 40 * pageBytes)
            #expect(range.load(40 * pageBytes) == 9)
            try pager.stop(.poison)
        }
    }
}
