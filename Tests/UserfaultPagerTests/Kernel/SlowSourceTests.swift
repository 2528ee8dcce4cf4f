import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Answers once so many pages are asked for at the same time, or after five seconds.
private final class Crowd: PageSource {
    let isSlow = true
    let inside = Atomic<Int>(0)
    let isLate = Atomic<Bool>(false)
    private let expected: Int

    init(of expected: Int) {
        self.expected = expected
    }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        inside.add(1, ordering: .sequentiallyConsistent)
        let deadline = MonotonicInstant.now.nanoseconds + 5_000_000_000
        while inside.load(ordering: .sequentiallyConsistent) < expected {
            if MonotonicInstant.now.nanoseconds > deadline {
                isLate.store(true, ordering: .relaxed)
                break
            }
            NativeThread.yield()
        }
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

@Suite(.serialized, .timeLimit(.minutes(5)))
struct SlowSourceTests {
    /// Touches a page each on threads of their own.
    private static func touch(_ count: Int, of range: AddressRange) -> [UInt64?] {
        let touchers = (0..<count).map { page in Toucher { range.loadWord(page * pageBytes) } }
        return touchers.map { $0.value() }
    }

    @Test(arguments: [2, 8])
    func asManyPagesAreLoadedAtOnceAsThereAreWorkers(count: Int) throws {
        let crowd = Shared(Crowd(of: count))
        let mapping = try Mapping(anonymous: count * pageBytes)
        let source = ClosureSource<Never>(isSlow: true) { crowd.value.load(offset: $0, into: &$1) }
        let pager = try Pager(
            UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(count)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        #expect(Self.touch(count, of: mapping.range) == (0..<count).map { NumberedSource.word($0 * pageBytes) })
        let isLate = crowd.value.isLate.load(ordering: .relaxed)
        #expect(!isLate)
        try pager.stop(.poison)
    }

    /// Clients of one file wait for a page that one of them has it made, and for no other.
    @Test
    func sharedPagesAreMadeAtOnce() throws {
        let crowd = Shared(Crowd(of: 4))
        let file = try Memfd(count: 4 * pageBytes)
        let base = ClosureSource<Never>(isSlow: true) { crowd.value.load(offset: $0, into: &$1) }
        let pages = try SharedPages(file, from: base)
        let mapping = try Mapping(file)
        let pager = try Pager(
            UserfaultFD(), source: pages.source, configuration: PagerConfiguration(service: .workers(4)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        #expect(Self.touch(4, of: mapping.range) == (0..<4).map { NumberedSource.word($0 * pageBytes) })
        let isLate = crowd.value.isLate.load(ordering: .relaxed)
        #expect(!isLate)
        try pager.stop(.poison)
    }

    @Test
    func aSlowPageDelaysNoOther() throws {
        let mayAnswer = Shared(Atomic<Bool>(false))
        let source = ClosureSource<Never>(isSlow: true) { offset, pages in
            let deadline = MonotonicInstant.now.nanoseconds + 5_000_000_000
            while offset == 0, !mayAnswer.value.load(ordering: .acquiring), MonotonicInstant.now.nanoseconds < deadline
            {
                NativeThread.yield()
            }
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: source, configuration: PagerConfiguration(service: .workers(2)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        let isFirstThere = Shared(Atomic<Bool>(false))
        let first = Toucher {
            _ = range.loadWord(0)
            isFirstThere.value.store(true, ordering: .releasing)
        }
        let others = Toucher.value { (1..<64).map { range.loadWord($0 * pageBytes) } }
        #expect(others == (1..<64).map { NumberedSource.word($0 * pageBytes) })
        let isFirst = isFirstThere.value.load(ordering: .acquiring)
        #expect(!isFirst)
        mayAnswer.value.store(true, ordering: .releasing)
        #expect(first.join())
        try pager.stop(.poison)
    }
}
