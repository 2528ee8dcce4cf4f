import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Counts how often each page is asked for, in memory that processes share.
private struct TallyingSource: PageSource {
    let tally: AddressRange

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        for page in 0..<pages.freeCapacity / pageBytes { count(offset / pageBytes + page) }
        return NumberedSource().load(offset: offset, into: &pages)
    }

    private func count(_ page: Int) {
        let word = UnsafeMutableRawPointer(bitPattern: tally.start + UInt(page * 8))!
        word.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.add(1, ordering: .relaxed)
    }

}

/// A process that waits for a word, and then serves the memory of its parent until it is killed.
private struct Successor {
    let pid: pid_t
    private let pipe: CInt

    static func fork(_ body: () throws -> AnyObject) throws -> Successor {
        var ends: [CInt] = [-1, -1]
        try #require(Glibc.pipe(&ends) == 0)
        let pid = Glibc.fork()
        if pid == 0 {
            alarm(120)
            close(ends[1])
            var byte: UInt8 = 0
            guard read(ends[0], &byte, 1) == 1 else { _exit(0) }
            do {
                let pager = try body()
                while true { withExtendedLifetime(pager) { _ = pause() } }
            } catch {
                _ = try? FileDescriptor.standardError.writeAll("\(error)\n".utf8)
                _exit(100)
            }
        }
        close(ends[0])
        return Successor(pid: pid, pipe: ends[1])
    }

    func go() {
        var byte: UInt8 = 1
        _ = write(pipe, &byte, 1)
    }

    /// - Returns: The signal that ended it, or 0 if it ended by itself.
    func end() -> CInt {
        kill(pid, SIGKILL)
        var status: CInt = 0
        waitpid(pid, &status, 0)
        close(pipe)
        return status & 0x7f
    }
}

/// Memory of this process, which other processes serve in turn.
private final class Estate: @unchecked Sendable {
    static let moved = 32
    let pages: Int
    let range: AddressRange
    let target: AddressRange
    let tally: AddressRange
    let uffd: UserfaultFD
    let state: PagerState
    private let service: PagerConfiguration.Service

    init(pages: Int, service: PagerConfiguration.Service) throws {
        self.pages = pages
        self.service = service
        range = try Mapping(anonymous: pages * pageBytes).release()
        target = try Mapping(anonymous: Self.moved * pageBytes).release()
        tally = try Mapping(anonymous: pages * 8, sharing: .shared).release()
        uffd = try UserfaultFD(features: [.eventRemove, .eventUnmap, .eventRemap])
        state = try PagerState()
    }

    /// In a process of its own.
    func serve(isFirst: Bool) throws -> AnyObject {
        let state = isFirst ? state : try state.withUnsafeDescriptor { try PagerState(duplicating: $0) }
        let configuration = PagerConfiguration(service: service, state: state)
        let owner = try #require(Owner.process(id: getppid()))
        let source = TallyingSource(tally: tally)
        guard !isFirst else {
            let pager = try Pager(uffd.duplicate(), source: source, owner: owner, configuration: configuration)
            try pager.start()
            try pager.add(range, options: RegionOptions(readAhead: .none))
            return pager
        }
        let pager = try Pager(resuming: uffd.duplicate(), source: source, owner: owner, configuration: configuration)
        guard pager.regions.map(\.range) == [range] else { throw Unavailable() }
        try pager.start()
        return pager
    }

    /// Reads one page in four; drops some of them, which are zeros then.
    ///
    /// - Returns: How many were wrong.
    func read(_ part: Int, _ progress: borrowing Atomic<Int>) -> Int {
        var wrong = 0
        for page in stride(from: part, to: pages - Self.moved, by: 4) {
            if range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) { wrong += 1 }
            if page % 16 < 2 {
                try? AddressSpace.advise(.dontNeed, range.part(at: page * pageBytes, count: pageBytes))
                if range.loadWord(page * pageBytes) != 0 { wrong += 1 }
            }
            progress.add(1, ordering: .relaxed)
        }
        return wrong
    }

    /// Moves the last pages elsewhere, one by one, as the others get on.
    func move(_ progress: borrowing Atomic<Int>) -> Int {
        var wrong = 0
        for number in 0..<Self.moved {
            let due = (pages - Self.moved) * number / Self.moved
            while progress.load(ordering: .relaxed) < due { NativeThread.yield() }
            let page = pages - Self.moved + number
            let new = target.part(at: number * pageBytes, count: pageBytes)
            _ = try? AddressSpace.move(range.part(at: page * pageBytes, count: pageBytes), to: new.start)
            if new.loadWord(0) != NumberedSource.word(page * pageBytes) { wrong += 1 }
        }
        return wrong
    }
}

/// A pager whose process is killed, and the one that goes on.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ResumeTests {
    /// Threads read, drop and move while one pager after the other is killed, anywhere.
    @Test(.startsThreadsAfterFork, arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func nobodySeesThatPagersAreKilled(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .success) { [isInline = isInline as Bool] in
            alarm(150)
            let estate = try Estate(pages: 4000, service: isInline ? .inline : .workers(2))
            let lives = 24
            let successors = try (0..<lives).map { life in try Successor.fork { try estate.serve(isFirst: life == 0) } }
            successors[0].go()
            #expect(wait { (try? estate.state.file.entries().count) == 1 })
            let progress = Shared(Atomic<Int>(0))
            let wrong = Shared(Atomic<Int>(0))
            var touchers = (0..<4).map { part in
                Toucher { _ = wrong.value.add(estate.read(part, progress.value), ordering: .relaxed) }
            }
            touchers.append(Toucher { _ = wrong.value.add(estate.move(progress.value), ordering: .relaxed) })
            var random = SplitMix(state: 7)
            for life in 0..<lives - 1 {
                let due = (life + 1) * estate.pages / (lives + 1)
                #expect(wait { progress.value.load(ordering: .relaxed) >= due })
                for _ in 0..<random.below(100) { NativeThread.yield() }
                #expect(successors[life].end() == SIGKILL)
                successors[life + 1].go()
            }
            for toucher in touchers { #expect(toucher.join()) }
            #expect(wrong.value.load(ordering: .relaxed) == 0)
            #expect(successors[lives - 1].end() == SIGKILL)
            let loads = (0..<estate.pages).reduce(0) { $0 + Int(estate.tally.loadWord($1 * 8)) }
            // Where memory changes, what was loaded is often not wanted any more: more is asked for than is filled.
            #expect(loads >= estate.pages)
        }
    }

    /// What was read and taken in by nobody is found, once.
    @Test
    func whatWasReadIsFound() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes, options: .populate)
        let range = mapping.range
        let uffd = try UserfaultFD(features: .eventRemove)
        _ = try uffd.register(range, modes: .missing)
        let file = try StateFile()
        let machine = try PagerStateMachine()
        var batch = EventBatch(capacity: 16)
        #expect(try file.read(uffd, into: &batch, neverWaits: true) == 0)
        file.note(machine, changed: false)
        let dropping = Toucher { try? AddressSpace.advise(.dontNeed, range.part(at: pageBytes, count: pageBytes)) }
        #expect(try wait { try file.read(uffd, into: &batch, neverWaits: true) == 1 })
        #expect(dropping.join())
        let left = try file.withUnsafeDescriptor { try StateFile(duplicating: $0.rawValue) }
        func found() throws -> [AddressRange] {
            var found: [AddressRange] = []
            let isWhole = try left.recover { event in if case .remove(let range) = event { found.append(range) } }
            #expect(isWhole)
            return found
        }
        #expect(try found() == [range.part(at: pageBytes, count: pageBytes)])
        left.note(machine, changed: true)
        #expect(try found() == [])
    }

    @Test
    func whatIsNoStateIsRefused() throws {
        func refusal(_ descriptor: CInt) -> PagerError? {
            do throws(PagerError) {
                _ = try StateFile(duplicating: descriptor)
                return nil
            } catch {
                return error
            }
        }
        func isStateError(_ error: PagerError?) -> Bool {
            if case .state = error { return true }
            return false
        }
        for (count, isSealed) in [(0, true), (StateFile.Place.states, false), (StateFile.Place.states, true)] {
            let file = try Memfd(count: count)
            if isSealed { try file.addSeals(.shrink) }
            #expect(isStateError(refusal(file.withUnsafeDescriptor { $0.rawValue })))
        }
        #expect(refusal(-1) != nil && refusal(0) != nil)
        for field in [StateFile.Header.magic, .version, .pageSize, .end] {
            let state = try StateFile()
            state[field] = .max
            #expect(isStateError(refusal(state.withUnsafeDescriptor { $0.rawValue })))
        }
    }

    /// Whatever stands in a state, no memory is touched that is not the state's.
    @Test
    func aDamagedStateIsRefused() throws {
        let range = AddressRange(start: 1 << 35, count: 16 * pageBytes)
        let state = try StateFile()
        let entry = try state.makeEntry(id: 1, range, offset: 0, RegionOptions())
        state.commit(entry.slot)
        #expect(try state.entries().map(\.range) == [range])
        // Start, length, offset, page size, and where the states are.
        for field in [2, 3, 4, 5, 10] {
            let before = state.slotWord(entry.slot, field)
            for value in [UInt64.max, before + 1] {
                state.setSlotWord(entry.slot, field, value)
                #expect(throws: PagerError.self) { _ = try state.entries() }
            }
            state.setSlotWord(entry.slot, field, before)
        }
        #expect(try state.entries().count == 1)
    }

    /// Numbers that no pager writes trap nowhere, neither here nor when the next region is added.
    @Test
    func numbersThatNoPagerWritesAreRefused() throws {
        let state = try StateFile()
        let ranges = (0..<2).map { AddressRange(start: UInt(1 + $0) << 35, count: 16 * pageBytes) }
        let entries = try ranges.enumerated().map {
            try state.makeEntry(id: $0.offset + 1, $0.element, offset: 0, RegionOptions())
        }
        // Only the first one is served: the other one is to be forgotten.
        state.commit(entries[0].slot)
        #expect(try state.entries().map(\.range) == [ranges[0]])
        for slot in entries.map(\.slot) {
            // Id, start, length, offset, page size, retries, back-off, and where the states are.
            for field in [1, 2, 3, 4, 5, 8, 10] {
                let before = state.slotWord(slot, field)
                for value in [UInt64.max, UInt64(Int.max), UInt64(Int.max - 1), UInt64(Int.max - pageBytes + 1)] {
                    if field == 8, value != .max { continue }
                    state.setSlotWord(slot, field, value)
                    #expect(throws: StateFile.damaged, "field \(field) of \(slot): \(value)") {
                        _ = try state.entries()
                    }
                }
                state.setSlotWord(slot, field, before)
            }
            let before = state.slotWord(slot, 0)
            state.setSlotWord(slot, 0, 3)
            #expect(throws: StateFile.damaged) { _ = try state.entries() }
            state.setSlotWord(slot, 0, before)
        }
        // One's states are not the other's.
        let before = state.slotWord(entries[1].slot, 10)
        state.setSlotWord(entries[1].slot, 10, UInt64(entries[0].states))
        #expect(throws: StateFile.damaged) { _ = try state.entries() }
        state.setSlotWord(entries[1].slot, 10, before)
        #expect(try state.entries().map(\.range) == [ranges[0]])
    }

    /// What is damaged only after it was looked at is forgotten, and no hole made where it says.
    @Test
    func aDamagedPlaceIsFreed() throws {
        let state = try StateFile()
        let range = AddressRange(start: 1 << 35, count: 16 * pageBytes)
        let slots = try (1...2).map { try state.makeEntry(id: $0, range, offset: 0, RegionOptions()).slot }
        state.setSlotWord(slots[0], 3, .max)
        state.setSlotWord(slots[1], 10, UInt64(StateFile.Place.messages))
        state[.features] = 7
        state.freeAll(but: [])
        #expect(try state.entries().isEmpty)
        #expect(state[.features] == 7)
        #expect(try (1...2).map { try state.makeEntry(id: $0, range, offset: 0, RegionOptions()).slot } == slots)
    }

    /// Regions that are added at the same time have places of their own.
    @Test
    func entriesThatAreMadeAtOnceAreDifferent() throws {
        let state = try StateFile()
        let touchers = (0..<4).map { thread in
            Toucher {
                (0..<100).compactMap { turn in
                    let id = 1 + thread * 100 + turn
                    let range = AddressRange(start: UInt(id) << 30, count: 16 * pageBytes)
                    return try? state.makeEntry(id: id, range, offset: 0, RegionOptions())
                }
            }
        }
        let entries = touchers.flatMap { $0.value() ?? [] }
        #expect(entries.count == 400)
        #expect(Set(entries.map(\.slot)).count == 400)
        #expect(Set(entries.map(\.states)).count == 400)
        for entry in entries { state.commit(entry.slot) }
        #expect(try state.entries().count == 400)
    }

    /// Its events are for the pager that will go on.
    @Test
    func aRefusedPagerReadsNothing() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let range = mapping.range
        let uffd = try UserfaultFD(features: .eventRemove)
        _ = try uffd.register(range, modes: .missing)
        let dropping = Toucher { try? AddressSpace.advise(.dontNeed, range.part(at: 0, count: pageBytes)) }
        #expect(try wait { try uffd.status().pending + (pollForEvent(uffd) ? 1 : 0) > 0 })
        let state = try PagerState()
        let owner = try #require(Owner.process(id: getpid()))
        let refusal = #expect(throws: PagerError.self) {
            _ = try Pager(
                resuming: uffd.duplicate(), source: NumberedSource(), owner: owner,
                configuration: PagerConfiguration(state: state))
        }
        guard case .state = refusal else {
            Issue.record("\(String(describing: refusal))")
            return
        }
        #expect(try pollForEvent(uffd))
        // The state is still as it was: a new pager takes it.
        let pager = try Pager(
            uffd, source: NumberedSource(), owner: owner, configuration: PagerConfiguration(state: state))
        try pager.start()
        #expect(dropping.join())
        try pager.stop(.poison)
    }

    /// What fails after the state was taken leaves it to the next attempt.
    @Test
    func aStateThatCouldNotBeRestoredIsLeft() throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let range = mapping.range
        let uffd = try UserfaultFD()
        let owner = try #require(Owner.process(id: getpid()))
        let left = try PagerState()
        let entry = try left.file.makeEntry(id: 1, range, offset: 0, RegionOptions())
        left.file.commit(entry.slot)
        left.file[.features] = uffd.enabledFeatures.rawValue
        // Two pieces of memory at the same place.
        let table = StateFile.Place.tables / 8
        let words: [UInt64] =
            [2, 0]
            + [0, 1].flatMap { _ in
                [UInt64(range.start), UInt64(range.count), UInt64(entry.slot), 1, 0, 0]
            }
        try words.withUnsafeBytes { bytes in
            _ = try left.withUnsafeDescriptor { try $0.writeAll(toAbsoluteOffset: Int64(table * 8), bytes) }
        }
        let state = try left.withUnsafeDescriptor { try PagerState(duplicating: $0) }
        for _ in 0..<2 {
            let refusal = #expect(throws: PagerError.self) {
                _ = try Pager(
                    resuming: uffd.duplicate(), source: NumberedSource(), owner: owner,
                    configuration: PagerConfiguration(state: state))
            }
            #expect(refusal == StateFile.damaged)
        }
        #expect(state.file.isLeft)
    }

    private func pollForEvent(_ uffd: borrowing UserfaultFD) throws -> Bool {
        try uffd.withUnsafeDescriptor { try poll($0.rawValue, until: Deadline(after: .zero)) } != 0
    }
}
