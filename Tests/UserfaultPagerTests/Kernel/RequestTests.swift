import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Brings one page of each request, however many are wanted, and fails the first request for several.
private final class SparingSource: AsynchronousPageSource {
    private let hasFailed = Atomic<Bool>(false)

    func load(_ request: consuming PageRequest) {
        if request.byteCount > pageBytes, !hasFailed.exchange(true, ordering: .relaxed) { return request.fail() }
        request.completeNumbered(upTo: pageBytes)
    }
}

/// Pages that come later, from whatever thread.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct RequestTests {
    private func pager(
        _ box: Mailbox, _ configuration: PagerConfiguration = PagerConfiguration(),
        features: UserfaultFD.Features = []
    ) throws -> Pager<AsynchronousSource<LaterSource>> {
        try Pager(
            UserfaultFD(features: features), source: AsynchronousSource(LaterSource(box: box)),
            configuration: configuration)
    }

    /// Whoever has no pager is answered as one, and once.
    @Test
    func aRequestOfOnesOwnIsAnsweredOnce() {
        let source = NumberedLaterSource(isHeld: true)
        let answers = Mutex<[String]>([])
        func ask() {
            source.load(
                PageRequest(offset: 3 * pageBytes, byteCount: 2 * pageBytes) { reply in
                    guard case .memory(let address, let count)? = reply else {
                        return answers.withLock { $0.append("\(reply.debugDescription)") }
                    }
                    let content = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: count)
                    let places = [3 * pageBytes, 4 * pageBytes]
                    let isRight = places.allSatisfy { place in
                        content.load(fromByteOffset: place - 3 * pageBytes, as: UInt64.self)
                            == NumberedSource.word(place)
                    }
                    answers.withLock { $0.append("\(count / pageBytes) pages, right: \(isRight)") }
                })
        }
        ask()
        #expect(answers.withLock(\.self) == [])
        source.release()
        ask()
        #expect(answers.withLock(\.self) == ["2 pages, right: true", "2 pages, right: true"])
        drop(
            PageRequest(offset: 0, byteCount: pageBytes) { reply in answers.withLock { $0.append("\(reply == nil)") } })
        #expect(answers.withLock(\.self).last == "true")
        PageRequest(offset: 0, byteCount: pageBytes) { reply in
            answers.withLock { $0.append("\(reply == .zero)") }
        }.complete(.zero)
        #expect(answers.withLock(\.self).count == 4)
    }

    private func drop(_ request: consuming PageRequest) {}

    /// A source may keep a request for ever: it does not keep the pager, which has the source.
    @Test
    func aSourceThatNeverAnswersGoesWithItsPager() throws {
        weak var source: Mailbox?
        do {
            let box = Mailbox()
            source = box
            let mapping = try Mapping(anonymous: 4 * pageBytes)
            let pager = try pager(box)
            let region = try pager.add(mapping.range)
            try pager.start()
            try pager.prefetch(region, count: pageBytes)
            #expect(wait { box.received.load(ordering: .acquiring) > 0 })
            try pager.stop(.leaveZeros)
        }
        // Threads of the runtime may let go of it a moment later.
        #expect(wait { source == nil })
    }

    /// A piece that lies in two mappings is loaded in two parts.
    @Test
    func populateLeavesNothingBehindInASecondMapping() throws {
        let mapping = try Mapping(anonymous: 128 * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(NumberedLaterSource()))
        let region = try pager.add(range)
        let rest = UnsafeMutableRawPointer(bitPattern: range.start + UInt(40 * pageBytes))
        #expect(mprotect(rest, 88 * pageBytes, PROT_READ) == 0)
        try pager.start()
        try pager.populate(region, within: .seconds(20))
        #expect(try pager.countUnfilledBytes() == 0)
        try pager.stop(.poison)
        for page in 0..<128 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
    }

    /// What comes during a pause is asked for again.
    @Test
    func populateLeavesNothingBehindInAPause() throws {
        let mapping = try Mapping(anonymous: 16 * pageBytes)
        let range = mapping.range
        let source = NumberedLaterSource(isHeld: true)
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(source))
        let region = try pager.add(range)
        try pager.start()
        let populating = Toucher { (try? pager.populate(region, within: .seconds(20))) != nil }
        #expect(wait { source.count > 0 })
        try pager.pause()
        source.release()
        try pager.resume()
        #expect(populating.value() == true)
        #expect(try pager.countUnfilledBytes() == 0)
        try pager.stop(.poison)
    }

    /// Nobody can have the pages behind the end of a file that was cut.
    @Test
    func populateEndsBehindTheEndOfAFile() throws {
        let file = try Memfd(count: 64 * pageBytes)
        let mapping = try Mapping(file)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(NumberedLaterSource()))
        let region = try pager.add(
            range, options: RegionOptions(failure: FailurePolicy(retries: 1, backOff: .microseconds(100))))
        try pager.start()
        try file.resize(to: 21 * pageBytes)
        try pager.populate(region, within: .seconds(20))
        for page in 0..<21 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
        try pager.stop(.poison)
    }

    /// What a request leaves behind is asked for again, until every page is there.
    @Test
    func populateLeavesNothingBehind() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(SparingSource()))
        let options = RegionOptions(failure: FailurePolicy(retries: 2, backOff: .microseconds(100)))
        let region = try pager.add(range, options: options)
        try pager.start()
        try pager.populate(region, within: .seconds(20))
        let filled = try AddressSpace.residency(of: range).count { $0 }
        #expect(filled == 64)
        try pager.stop(.poison)
        for page in 0..<filled { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
    }

    /// How memory became another's.
    enum Departure: CaseIterable {
        case unmapped, replaced, moved
        /// It is nobody's.
        case plain
    }

    /// A page comes when its memory is another's: the kernel says so, or its event of unmapping was read.
    @Test(arguments: [UserfaultFD.Features(), .eventUnmap], Departure.allCases)
    func memoryThatHasBecomeAnothersIsLeftAlone(features: UserfaultFD.Features, departure: Departure) throws {
        var mapping = try Mapping(anonymous: 3 * pageBytes)
        let range = mapping.range
        let box = Mailbox()
        let pager = try pager(box, features: features)
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let other = try UserfaultFD()
        try pager.replay(WorkingSet(offsets: [0, UInt64(2 * pageBytes)], pageBytes: UInt32(pageBytes)))
        #expect(wait { box.received.load(ordering: .acquiring) == 2 })
        let letters = box.takeAll()
        try #require(letters.count == 2)
        letters[0].take().completeNumbered()
        #expect(try AddressSpace.residency(of: range).count { $0 } == 1)
        var placement = Mapping.Placement.at(range.start)
        switch departure {
        case .unmapped, .plain: try mapping.unmap()
        case .replaced:
            _ = mapping.release()
            placement = .replacing(range.start)
        case .moved:
            try mapping.remap(to: .replacing(Mapping(anonymous: range.count).release().start))
            try mapping.unmap()
        }
        let again = try Mapping(anonymous: range.count, placement: placement)
        if departure != .plain { try other.register(again.range, modes: .missing) }
        letters[1].take().completeNumbered()
        #expect(try AddressSpace.residency(of: again.range) == [false, false, false])
        try pager.stop(.poison)
        #expect(try AddressSpace.residency(of: again.range) == [false, false, false])
        #expect(pager.statistics.pagesCopied == 1)
        withExtendedLifetime(again) {}
        extendLifetime(other)
    }

    /// Sixteen pages are outstanding at once on the one thread that reads, and come in the reverse order.
    @Test
    func manyRequestsAreOutstandingOnOneThread() throws {
        let mapping = try Mapping(anonymous: 16 * pageBytes)
        let range = mapping.range
        let box = Mailbox()
        let pager = try pager(box)
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let touchers = (0..<16).map { page in
            Toucher { precondition(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
        }
        #expect(wait { box.received.load(ordering: .acquiring) == 16 })
        for letter in box.takeAll().reversed() { letter.take().completeNumbered() }
        for toucher in touchers { #expect(toucher.join()) }
        try pager.stop(.poison)
        #expect(pager.settledStatistics.missingFaults == 16)
        #expect(pager.settledStatistics.pagesCopied == 16)
    }

    /// What is loaded in the background is asked for a few requests at a time, and fewer while a thread waits.
    @Test(arguments: [false, true])
    func backgroundRequestsAreBounded(isWaiting: Bool) throws {
        let pages = 256
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let box = Mailbox()
        let pager = try pager(box, PagerConfiguration(backgroundRequests: 16))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let toucher = Toucher { isWaiting ? range.loadWord(0) : NumberedSource.word(0) }
        if isWaiting { #expect(wait { box.received.load(ordering: .acquiring) == 1 }) }
        let demand = box.takeAll()
        // One page each: every other one.
        let wanted = stride(from: 2, to: pages, by: 2).map { UInt64($0 * pageBytes) }
        try pager.replay(WorkingSet(offsets: wanted, pageBytes: UInt32(pageBytes)))
        var taken = 0
        while taken < wanted.count {
            let letters = box.takeAll()
            #expect(letters.count <= (isWaiting ? 4 : 16))
            taken += letters.count
            for letter in letters { letter.take().completeNumbered() }
            guard letters.isEmpty else { continue }
            try #require(wait { box.received.load(ordering: .acquiring) > taken + demand.count }, "\(taken) came")
        }
        for letter in demand { letter.take().completeNumbered() }
        #expect(toucher.value() == NumberedSource.word(0))
        #expect(wait { pager.statistics.pagesCopied == UInt64(wanted.count + demand.count) })
        try pager.stop(.poison)
    }

    /// What is dropped fails, and is asked for again as the policy says.
    @Test
    func aRequestThatIsDroppedFailsItsPages() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let box = Mailbox()
        let pager = try pager(box)
        let policy = FailurePolicy(retries: 2, backOff: .microseconds(100))
        try pager.add(range, options: RegionOptions(readAhead: .none, failure: policy))
        try pager.start()
        let toucher = Toucher { precondition(range.loadWord(0) == NumberedSource.word(0)) }
        for round in 1...2 {
            #expect(wait { box.received.load(ordering: .acquiring) == round })
            _ = box.takeAll()
        }
        #expect(wait { box.received.load(ordering: .acquiring) == 3 })
        for letter in box.takeAll() { letter.take().completeNumbered() }
        #expect(toucher.join())
        try pager.stop(.poison)
        #expect(pager.settledStatistics.retries == 2)
    }

    @Test
    func populateWaitsForItsRequests() throws {
        let pages = 256
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let box = Mailbox()
        let pager = try pager(box)
        let region = try pager.add(mapping.range)
        try pager.start()
        let populating = Toucher { try? pager.populate(region) }
        let isOver = Shared(Atomic<Bool>(false))
        let completing = Toucher {
            while !isOver.value.load(ordering: .relaxed) {
                for letter in box.takeAll() { letter.take().completeNumbered() }
                sched_yield()
            }
        }
        #expect(populating.join())
        isOver.value.store(true, ordering: .relaxed)
        #expect(completing.join())
        for page in 0..<pages {
            #expect(mapping.range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes))
        }
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesCopied == UInt64(pages))
    }

    /// The pager has stopped, and the memory is somebody else's.
    @Test
    func aRequestThatOutlivesItsPagerChangesNothing() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let range = mapping.range
            let box = Mailbox()
            let letters: [Mailbox.Letter]
            do {
                let pager = try Pager(UserfaultFD(), source: AsynchronousSource(LaterSource(box: box)))
                let region = try pager.add(range)
                try pager.start()
                #expect(throws: PagerError.timedOut(pagesLeft: 2)) {
                    try pager.populate(region, within: .milliseconds(10))
                }
                letters = box.takeAll()
                #expect(letters.filter(\.isCancelled).isEmpty)
                try pager.stop(.poison, within: .milliseconds(10))
            }
            #expect(letters.filter(\.isCancelled).count == letters.count)
            try mapping.advise(.dontNeed)
            range.store(9, at: 0)
            for letter in letters { letter.take().completeNumbered() }
            #expect(range.load(0) == 9)
        }
    }

    @Test
    func aRequestThatTakesTooLongEndsInSIGBUS() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let box = Mailbox()
            _ = try touchOnePage(
                of: AsynchronousSource(LaterSource(box: box)),
                configuration: PagerConfiguration(
                    sourceTimeout: .milliseconds(50), watchdogInterval: .milliseconds(10)))
        }
    }
}
