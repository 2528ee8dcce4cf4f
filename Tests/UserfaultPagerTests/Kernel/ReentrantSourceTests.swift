import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Takes requests from threads that complete others; counts those that come from one thread.
private final class ReentrantSource: AsynchronousPageSource {
    let box = Mailbox()
    let completer = Atomic<Int32>(0)
    let fromCompleter = Atomic<Int>(0)
    let isOver = Atomic<Bool>(false)
    private let isImmediate: Bool
    var isReentrant: Bool { true }

    init(isImmediate: Bool) {
        self.isImmediate = isImmediate
    }

    func load(_ request: consuming PageRequest) {
        if isImmediate { return request.completeNumbered() }
        if NativeThread.currentID == completer.load(ordering: .acquiring) { fromCompleter.add(1, ordering: .relaxed) }
        box.put(request)
    }
}

/// Sources that are asked for more by the threads that complete their requests.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ReentrantSourceTests {
    /// Every other page, so that each is a request of its own.
    private func everyOther(of pages: Int) -> WorkingSet {
        WorkingSet(
            offsets: stride(from: 0, to: pages, by: 2).map { UInt64($0 * pageBytes) }, pageBytes: UInt32(pageBytes))
    }

    /// The thread that brings a page is asked for the next one: no other is woken for that.
    @Test
    func theThreadThatCompletesIsAskedForMore() throws {
        let pages = 512
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let source = ReentrantSource(isImmediate: false)
        let pager = try Pager(
            UserfaultFD(), source: AsynchronousSource(source),
            configuration: PagerConfiguration(backgroundRequests: 16))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        source.completer.store(NativeThread.currentID, ordering: .releasing)
        try pager.replay(everyOther(of: pages))
        var left = pages / 2
        while left > 0 {
            let letters = source.box.takeAll()
            for letter in letters { letter.take().completeNumbered() }
            left -= letters.count
            guard letters.isEmpty else { continue }
            let asked = pages / 2 - left
            try #require(wait { source.box.received.load(ordering: .acquiring) > asked })
        }
        // Loaders begin, and may have been faster until they had gone to sleep.
        #expect(source.fromCompleter.load(ordering: .relaxed) > pages / 4)
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesCopied == UInt64(pages / 2))
    }

    /// A source that completes a request at once is not called from within its own call, and again from there.
    @Test
    func callsAreNotNested() throws {
        let pages = 40_000
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(ReentrantSource(isImmediate: true)))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.replay(everyOther(of: pages))
        #expect(wait { pager.statistics.pagesCopied == UInt64(pages / 2) })
        try pager.stop(.poison)
    }

    /// A stop while requests are outstanding, and while a thread completes them, leaves none that is wanted.
    @Test
    func aStopEndsIt() throws {
        let pages = 4000
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let source = ReentrantSource(isImmediate: false)
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(source))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.replay(everyOther(of: pages))
        let completing = Toucher {
            var count = 0
            while !source.isOver.load(ordering: .acquiring) {
                for letter in source.box.takeAll() {
                    letter.take().completeNumbered()
                    count += 1
                }
            }
            return count
        }
        #expect(wait { pager.statistics.pagesCopied > 100 })
        try pager.stop(.poison)
        for letter in source.box.takeAll() { #expect(letter.isCancelled) }
        source.isOver.store(true, ordering: .releasing)
        #expect(completing.value() ?? 0 > 100)
    }
}
