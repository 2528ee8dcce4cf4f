import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Numbered pages, some of which come without waiting.
private final class PartlyReady: PageSource {
    let isSlow = true
    let isOftenReady = true
    private let isReady: @Sendable (Int) -> Bool
    private let wait: @Sendable (Int) -> Void
    private let tries = Atomic<Int>(0)
    private let waits = Atomic<Int>(0)
    /// Bytes that were given without waiting.
    private let readyBytes = Atomic<Int>(0)

    /// - Parameters:
    ///   - isReady: Whether the page of an offset comes without waiting.
    ///   - wait: Is called with the offset of each that is loaded otherwise.
    init(_ isReady: @escaping @Sendable (Int) -> Bool, wait: @escaping @Sendable (Int) -> Void = { _ in }) {
        self.isReady = isReady
        self.wait = wait
    }

    var tried: Int { tries.load(ordering: .relaxed) }
    var loaded: Int { waits.load(ordering: .relaxed) }
    var ready: Int { readyBytes.load(ordering: .relaxed) }

    func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        tries.add(1, ordering: .relaxed)
        var position = offset
        while pages.freeCapacity > 0, isReady(position) {
            pages.append(repeating: NumberedSource.word(position), count: pageBytes / 8, as: UInt64.self)
            position += pageBytes
        }
        readyBytes.add(position - offset, ordering: .relaxed)
        return position > offset ? .data : nil
    }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        waits.add(1, ordering: .relaxed)
        wait(offset)
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

/// Slow sources that answer at once for some pages.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ReadySourceTests {
    private final class Served: Sendable {
        let mapping: Mapping
        let pager: Pager<PartlyReady>
        var range: AddressRange { mapping.range }

        init(
            _ runtime: PagerRuntime, _ source: PartlyReady, pages: Int, readAhead: RegionOptions.ReadAhead = .none,
            features: UserfaultFD.Features = [], configuration: PagerConfiguration = PagerConfiguration()
        ) throws {
            mapping = try Mapping(anonymous: pages * pageBytes)
            pager = try Pager(
                UserfaultFD(features: features), source: source, runtime: runtime, configuration: configuration)
            try pager.add(mapping.range, options: RegionOptions(readAhead: readAhead))
            try pager.start()
        }

        /// Whether every page holds what its source says.
        var isRight: Bool {
            let range = range
            return Toucher.value {
                stride(from: 0, to: range.count, by: pageBytes).allSatisfy {
                    range.loadWord($0) == NumberedSource.word($0)
                }
            } ?? false
        }
    }

    /// Faults that wait for a loader are in its queue once, however long it hangs.
    @Test
    func faultsBehindALoaderThatHangsAreReadOnce() throws {
        let runtime = try PagerRuntime(loaders: 1)
        let gate = Gate()
        let isHeld = Shared(Atomic(false))
        let source = PartlyReady({ _ in false }) { _ in
            if !isHeld.value.exchange(true, ordering: .relaxed) { gate.pass() }
        }
        let reports = Reports()
        let pages = 16
        let served = try Served(
            runtime, source, pages: pages,
            configuration: PagerConfiguration(
                stuckAfter: .milliseconds(10), watchdogInterval: .milliseconds(5),
                report: { reports.add($0) }))
        let range = served.range
        let touchers = (0..<pages).map { page in Toucher { range.loadWord(page * pageBytes) } }
        #expect(gate.waitUntilReached())
        #expect(wait { source.tried >= pages })
        let hasHung = reports.wait { all in
            all.count { if case .stuck = $0 { true } else { false } } >= 3
        }
        #expect(hasHung)
        #expect(source.tried == pages)
        #expect(served.pager.statistics.queued < pages)
        gate.open()
        #expect(touchers.allSatisfy { $0.join() })
        try runtime.stop(.poison)
    }

    /// The thread that reads the fault fills what is ready; no other is woken.
    @Test
    func whatIsReadyIsFilledWhereItIsRead() throws {
        let runtime = try PagerRuntime(loaders: 2)
        let source = PartlyReady({ _ in true })
        let served = try Served(runtime, source, pages: 16)
        #expect(served.isRight)
        #expect(source.loaded == 0)
        #expect(source.tried == 16)
        #expect(served.pager.settledStatistics.missingFaults == 16)
        try runtime.stop(.poison)
    }

    /// What is not ready is loaded by a thread that may wait, is counted once, and holds up nothing.
    @Test
    func whatIsNotReadyHoldsUpNobody() throws {
        let gate = Gate()
        let runtime = try PagerRuntime(loaders: 2)
        let source = PartlyReady({ $0 != 0 }, wait: { _ in gate.pass() })
        let served = try Served(runtime, source, pages: 16)
        let range = served.range
        let first = Toucher { range.loadWord(0) }
        #expect(gate.waitUntilReached())
        let others = Toucher.value {
            (1..<16).allSatisfy { range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) }
        }
        #expect(others == true)
        let other = try Served(runtime, PartlyReady({ _ in true }), pages: 4)
        #expect(other.isRight)
        gate.open()
        #expect(first.value() == NumberedSource.word(0))
        #expect(source.loaded == 1)
        #expect(served.pager.settledStatistics.missingFaults == 16)
        try runtime.stop(.poison)
    }

    /// Sequential faults bring pages along, wherever they are served, and each counts once for the window.
    @Test(arguments: [1, 2, 1000])
    func pagesAreReadAhead(isReadyEach interval: Int) throws {
        let pages = 2048
        let runtime = try PagerRuntime(loaders: 1)
        let source = PartlyReady({ $0 / pageBytes / 64 % interval == 0 })
        let served = try Served(runtime, source, pages: pages, readAhead: .adaptive(maximumPages: 512))
        #expect(served.isRight)
        // A page at a time, there were as many as pages.
        let faults = served.pager.settledStatistics.missingFaults
        #expect(faults < UInt64(pages / 4), "\(faults) faults")
        if interval == 1 { #expect(source.ready == pages * pageBytes) }
        try runtime.stop(.poison)
    }

    /// A part that is ready is used; what follows it is asked for when it is wanted.
    @Test
    func aShortAnswerIsNoFailure() throws {
        let runtime = try PagerRuntime(loaders: 1)
        let source = PartlyReady({ $0 % (3 * pageBytes) == 0 })
        let served = try Served(runtime, source, pages: 256, readAhead: .adaptive(maximumPages: 16))
        #expect(served.isRight)
        let statistics = served.pager.settledStatistics
        #expect(statistics.failures == 0)
        #expect(statistics.retries == 0)
        #expect(source.loaded > 0)
        try runtime.stop(.poison)
    }

    /// Where the source cannot give a page, the failure policy is asked as for any other.
    @Test
    func whatIsLostIsPoisoned() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let runtime = try PagerRuntime(loaders: 1)
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let file = try numberedFile(pages: 2).release()
            let source = try FileSource(adopting: file)
            ftruncate(file, pageBytes)
            let pager = try Pager(UserfaultFD(), source: source, runtime: runtime)
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let range = mapping.range
            guard Toucher.value({ range.loadWord(0) }) == NumberedSource.word(0) else { exit(1) }
            _ = Toucher.value { range.loadWord(pageBytes) }
            exit(2)
        }
    }

    /// A descriptor that reports forks is read by a thread that asks nobody.
    @Test
    func whoFollowsForksIsNotAsked() throws {
        let runtime = try PagerRuntime(loaders: 2)
        let source = PartlyReady({ _ in true })
        let served = try Served(runtime, source, pages: 4, features: .eventFork)
        #expect(served.isRight)
        #expect(source.tried == 0)
        try runtime.stop(.poison)
    }

    // MARK: Files

    private static func askIfReady(_ source: borrowing FileSource, at offset: Int, pages count: Int) throws
        -> (reply: PageReply?, bytes: [UInt8])
    {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: count * pageBytes, alignment: 8)
        defer { room.deallocate() }
        var pages = OutputRawSpan(buffer: room, initializedCount: 0)
        let reply = source.loadIfReady(offset: offset, into: &pages)
        let filled = pages.finalize(for: room)
        return (reply, Array(room[..<filled]))
    }

    /// What is in memory comes at once, with zeros after the end; what was cut off does not, least of all as zeros.
    @Test
    func aCachedFileIsReady() throws {
        var path = Array("/var/tmp/uffd-ready-XXXXXX".utf8CString)
        let file = mkstemp(&path)
        try #require(file >= 0)
        unlink(path)
        for page in 0..<4 {
            var word = NumberedSource.word(page * pageBytes)
            try #require(pwrite(file, &word, 8, off_t(page * pageBytes)) == 8)
        }
        let source = try FileSource(adopting: file)
        // A file system may not know such reading.
        guard source.isOftenReady else { return }
        let (reply, bytes) = try Self.askIfReady(source, at: 2 * pageBytes, pages: 3)
        #expect(reply == .data)
        #expect(bytes.count == 3 * pageBytes)
        let words = bytes.withUnsafeBytes { bytes in
            (0..<3).map { bytes.load(fromByteOffset: $0 * pageBytes, as: UInt64.self) }
        }
        #expect(words[0] == NumberedSource.word(2 * pageBytes))
        #expect(words[1] == NumberedSource.word(3 * pageBytes))
        #expect(words[2] == 0)
        #expect(try Self.askIfReady(source, at: 8 * pageBytes, pages: 1).reply == .zero)
        try #require(ftruncate(file, off_t(2 * pageBytes)) == 0)
        #expect(try Self.askIfReady(source, at: 2 * pageBytes, pages: 1).reply == nil)
        #expect(try Self.askIfReady(source, at: pageBytes, pages: 3).bytes.count <= pageBytes)
    }

    @Test
    func aFileThatIsNotSlowIsNotAskedTwice() throws {
        #expect(try !FileSource(adopting: numberedFile(pages: 1).release(), isSlow: false).isOftenReady)
    }
}
