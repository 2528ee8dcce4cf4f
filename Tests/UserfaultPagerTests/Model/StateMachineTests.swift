import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.timeLimit(.minutes(5)))
struct StateMachineTests {
    static let scenarios: [(name: String, Model.Scenario)] = [
        ("two threads on one page", .init(pages: 1, touchers: [[0], [0]], handlers: 2)),
        ("two pages, read ahead", .init(touchers: [[0, 1], [1]], handlers: 2, readAhead: 1)),
        ("read against remove", .init(touchers: [[0, 1]], authors: [[.remove(pages: 0..<2)]], handlers: 2)),
        (
            "read ahead against remove",
            .init(touchers: [[0, 1]], authors: [[.remove(pages: 1..<2)]], handlers: 1, readAhead: 1)
        ),
        (
            "removed while two handlers read",
            .init(pages: 1, touchers: [[0]], authors: [[.remove(pages: 0..<1)]], handlers: 2)
        ),
        ("read against unmap", .init(touchers: [[0, 1]], authors: [[.unmap(pages: 1..<2)]], handlers: 2)),
        (
            "read against a move",
            .init(
                pages: 1, spare: 1, touchers: [[0, 1]],
                authors: [[.move(pages: 0..<1, to: 1, keepsOld: false)]], handlers: 1)
        ),
        (
            "a move that leaves its range",
            .init(
                pages: 1, spare: 1, touchers: [[0, 1, 0]],
                authors: [[.move(pages: 0..<1, to: 1, keepsOld: true)]], handlers: 1)
        ),
        (
            "a page that another process brings",
            .init(pages: 1, touchers: [[0], [0]], authors: [[.appear(page: 0)]], handlers: 1)
        ),
        (
            "a page read ahead and wanted, against remove",
            .init(touchers: [[0], [1]], authors: [[.remove(pages: 1..<2)]], handlers: 1, readAhead: 1)
        ),
        (
            "a hole read ahead of",
            .init(pages: 3, touchers: [[0, 1], [2]], handlers: 1, readAhead: 2, holes: [1])
        ),
        (
            "a hole that moves",
            .init(
                pages: 1, spare: 1, touchers: [[0, 1]],
                authors: [[.move(pages: 0..<1, to: 1, keepsOld: true)]], holes: [0])
        ),
        (
            "read against a fork",
            .init(pages: 1, touchers: [[0]], authors: [[.fork(childReads: [0])]], handlers: 1)
        ),
        (
            "a fork behind a removal",
            .init(pages: 1, touchers: [], authors: [[.remove(pages: 0..<1), .fork(childReads: [0])]])
        ),
        (
            "a fork against a removal",
            .init(pages: 1, touchers: [], authors: [[.remove(pages: 0..<1)], [.fork(childReads: [0])]])
        ),
        ("read against the end", .init(touchers: [[0, 1]], authors: [[.end]], readAhead: 1)),
        ("the end against a removal", .init(pages: 1, touchers: [[0]], authors: [[.end], [.remove(pages: 0..<1)]])),
        ("the end of parent and child", .init(pages: 1, touchers: [], authors: [[.fork(childReads: [0]), .end]])),
        (
            "the end against a fork of dropped pages",
            .init(
                pages: 1, touchers: [],
                authors: [[.remove(pages: 0..<1), .fork(childReads: [0])], [.end]])
        ),
        ("the end against a fork", .init(pages: 1, touchers: [], authors: [[.fork(childReads: [0])], [.end]])),
        (
            "requests, in any order",
            .init(touchers: [[0], [1]], isAsynchronous: true)
        ),
        (
            "requests that take too long",
            .init(pages: 1, touchers: [[0], [0]], isAsynchronous: true, expires: true)
        ),
        (
            "a request that takes too long, and a removal",
            .init(
                pages: 1, touchers: [[0, 0]], authors: [[.remove(pages: 0..<1)]], isAsynchronous: true, expires: true)
        ),
        ("requests against the end", .init(pages: 1, touchers: [[0]], authors: [[.end]], isAsynchronous: true)),
        ("read while it is populated", .init(touchers: [[1]], populates: true)),
        (
            "populated while a request takes too long",
            .init(touchers: [[0]], readAhead: 1, isAsynchronous: true, expires: true, populates: true)
        ),
        (
            "populated against a removal",
            .init(touchers: [], authors: [[.remove(pages: 0..<1)]], populates: true)
        ),
        (
            "one message at a time",
            .init(pages: 1, touchers: [[0]], authors: [[.remove(pages: 0..<1)]], handlers: 1, readLimit: 1)
        ),
    ]

    @Test(arguments: scenarios.indices)
    func everyInterleavingOf(scenario index: Int) throws {
        let explored = try Explorer(Self.scenarios[index].1).explore()
        #expect(explored.isComplete, "\(Self.scenarios[index].name): more than \(explored.runs) interleavings")
        #expect(explored.violation == nil, "\(Self.scenarios[index].name): \(explored.description)")
    }

    /// What the interleavings are worth: each of these engines, wrong in one line, is caught by one of them.
    ///
    /// But for what only longer runs meet.
    @Test(arguments: ModelHandler.Defect.allCases.filter { $0 != .forgetsTheAwaited })
    func someInterleavingCatches(_ defect: ModelHandler.Defect) throws {
        let caught = try Self.scenarios.contains { _, scenario in
            try Explorer(scenario, defect: defect, limit: 5000).explore().violation != nil
        }
        #expect(caught)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func millionsOfRandomSteps(seed: UInt64) throws {
        let violation = try RandomRun(SplitMix(state: seed)).violation(after: 100_000)
        #expect(violation == nil)
    }

    /// Those that need no rare coincidence.
    @Test(
        arguments: [
            .noWakeAfterExists, .fillsWhatHasChanged, .changingIsDone, .forgetsTheAwaited, .eventsAfterFaults,
        ] as [ModelHandler.Defect])
    func randomStepsCatch(_ defect: ModelHandler.Defect) throws {
        let caught = try (1...60).contains { seed in
            try RandomRun(SplitMix(state: seed), defect: defect).violation(after: 100_000) != nil
        }
        #expect(caught)
    }

    /// The kernel lets go of an address before it tells of it: another thread may move memory there meanwhile.
    @Test
    func memoryMovedToAnAddressOutlivesTheEventsOfWhatWasThere() throws {
        try withTwoPages { machine, records in
            // The second region is unmapped, then the first moved to where it was; the events come the other way round.
            _ = try machine.apply(.remap(from: 0x10000, to: 0x11000, count: pageBytes))
            _ = try machine.apply(.unmap(AddressRange(start: 0x11000, count: pageBytes)))
            _ = try machine.apply(.unmap(AddressRange(start: 0x10000, count: pageBytes)))
            #expect(machine.spans.find(0x11000)?.region == records[0])
            #expect(machine.spans.count == 1)
            // Now the program unmaps it indeed.
            _ = try machine.apply(.unmap(AddressRange(start: 0x11000, count: pageBytes)))
            #expect(machine.spans.count == 0)
        }
    }

    /// As before, but what was there has moved away and is still served.
    @Test
    func memoryThatMadeRoomIsFoundWhereItWent() throws {
        try withTwoPages { machine, records in
            _ = try machine.apply(.remap(from: 0x10000, to: 0x11000, count: pageBytes))
            _ = try machine.apply(.remap(from: 0x11000, to: 0x20000, count: pageBytes))
            _ = try machine.apply(.unmap(AddressRange(start: 0x11000, count: pageBytes)))
            _ = try machine.apply(.unmap(AddressRange(start: 0x10000, count: pageBytes)))
            #expect(machine.spans.find(0x11000)?.region == records[0])
            #expect(machine.spans.find(0x20000)?.region == records[1])
            #expect(machine.spans.count == 2)
            for address in [0x11000, 0x20000] as [UInt] {
                _ = try machine.apply(.unmap(AddressRange(start: address, count: pageBytes)))
            }
        }
    }

    /// The event that says that an address became free comes after all that others did there.
    @Test
    func memoryThatMovesOnIsNotTakenForWhatWasLeftBehind() throws {
        try withTwoPages { machine, records in
            // The first region leaves, the second takes its place and moves on; only then the unmapping is told.
            _ = try machine.apply(.remap(from: 0x10000, to: 0x30000, count: pageBytes))
            _ = try machine.apply(.remap(from: 0x11000, to: 0x10000, count: pageBytes))
            _ = try machine.apply(.unmap(AddressRange(start: 0x11000, count: pageBytes)))
            _ = try machine.apply(.remap(from: 0x10000, to: 0x20000, count: pageBytes))
            #expect(machine.spans.find(0x20000)?.states == records[1].states)
            #expect(machine.spans.find(0x30000)?.states == records[0].states)
            for _ in 0..<2 { _ = try machine.apply(.unmap(AddressRange(start: 0x10000, count: pageBytes))) }
            #expect(machine.spans.count == 2)
            for address in [0x20000, 0x30000] as [UInt] {
                _ = try machine.apply(.unmap(AddressRange(start: address, count: pageBytes)))
            }
        }
    }

    /// Several threads fault on one huge page at once: their messages come one after the other, the page is there since
    /// the first.
    @Test
    func aHugePageThatIsThereIsNotLost() throws {
        let size = PageSize.twoMiB.bytes
        let region = RegionReference(try RegionRecord(id: 1, count: size, options: RegionOptions(pageSize: .twoMiB)))
        defer { unsafe region.destroy() }
        var machine = try PagerStateMachine()
        let range = AddressRange(start: UInt(size), count: size)
        try machine.add(Span(range: range, region: region, states: region.states, offset: 0))
        for message in 0..<12 {
            guard
                case .fill(let claim) = machine.begin(
                    PageFault(address: range.start, flags: []), readAt: .max)
            else { continue }
            var settlement = machine.settle(claim, message == 0 ? .done : .exists, at: 0)
            if case .failed(var lost) = settlement.next {
                // The policy's last word is poison, to which the kernel says that the page is there.
                lost.content = .poison
                settlement = machine.settle(lost, .exists, at: 0)
                #expect(settlement.wake == range)
            }
            guard case .finished = settlement.next else {
                Issue.record("message \(message): \(settlement.next)")
                return
            }
        }
        #expect(!region.states[0].contains(.claimed))
        _ = try machine.apply(.unmap(range))
    }

    /// A page of a file that was there when the thread faulted, and was dropped before it was served.
    @Test
    func aPageThatTheFileHasLostIsLookedForAgain() throws {
        try withTwoPages { machine, records in
            let page = AddressRange(start: 0x10000, count: pageBytes)
            _ = try machine.apply(.remove(page))
            let minor = PageFault(address: page.start, flags: .minor)
            guard case .fill(let claim) = machine.begin(minor, readAt: .max) else {
                Issue.record("nothing to fill")
                return
            }
            #expect(claim.content == .file)
            let settlement = machine.settle(claim, .noPage, at: 0)
            #expect(settlement.wake == page)
            guard case .finished = settlement.next else {
                Issue.record("\(settlement.next)")
                return
            }
            #expect(records[0].states[0] == [.removed, .written])
            for address in [0x10000, 0x11000] as [UInt] {
                _ = try machine.apply(.unmap(AddressRange(start: address, count: pageBytes)))
            }
        }
    }

    /// Calls with a machine that serves two pages, at 0x10000 and at 0x11000, each a region of its own.
    private func withTwoPages(
        _ body: (inout PagerStateMachine, [RegionReference]) throws -> Void
    ) throws {
        let records = try (1...2).map { id in
            RegionReference(try RegionRecord(id: id, count: pageBytes, options: RegionOptions()))
        }
        defer { for record in records { unsafe record.destroy() } }
        var machine = try PagerStateMachine()
        for (index, record) in records.enumerated() {
            let range = AddressRange(start: UInt(0x10000 + index * pageBytes), count: pageBytes)
            try machine.add(Span(range: range, region: record, states: record.states, offset: 0))
        }
        try body(&machine, records)
    }
}
