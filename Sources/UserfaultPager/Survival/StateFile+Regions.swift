internal import Synchronization
internal import UserfaultFD

// How a region is written down. Runs on callers that add and remove regions, and on the thread that resumes.

extension StateFile {
    /// Of words of a slot.
    private enum Field: Int {
        case state, id, start, count, offset, pageSize, flags, readAhead, retries, backOff, states
    }

    private enum SlotState {
        static var free: Word { 0 }
        static var adding: Word { 1 }
        static var served: Word { 2 }
    }

    private enum Flag {
        static var writeProtected: Word { 1 }
        static var unservedInFork: Word { 2 }
        static var registeredByOwner: Word { 4 }
        static var killsOwner: Word { 8 }
    }

    private func get(_ slot: Int, _ field: Field) -> Word { slotWord(slot, field.rawValue) }
    private func set(_ slot: Int, _ field: Field, _ value: Word) { setSlotWord(slot, field.rawValue, value) }

    /// A region as it is written down.
    struct Entry {
        let slot: Int
        let id: Int
        let range: AddressRange
        let offset: Int
        let options: RegionOptions
        /// Where the states of its pages are, in bytes.
        let states: Int

        var pages: Int { options.pageSize.pages(in: range.count) }
        var endOfStates: Int { states + StateFile.bytesOfStates(pages: pages) }
    }

    /// Writes down a region that is being added, by any thread.
    func makeEntry(
        id: Int, _ range: AddressRange, offset: Int, _ options: RegionOptions
    ) throws(PagerError) -> Entry {
        try making.withLock { (_) throws(PagerError) in
            guard let slot = (0..<Self.slotCount).first(where: { get($0, .state) == SlotState.free }) else {
                throw .state("the state has no room for a further region")
            }
            let states = try asPagerError { () throws(UserfaultError) in
                try allocateStates(pages: options.pageSize.pages(in: range.count))
            }
            let entry = Entry(slot: slot, id: id, range: range, offset: offset, options: options, states: states)
            write(entry)
            return entry
        }
    }

    private func write(_ entry: Entry) {
        let (slot, options) = (entry.slot, entry.options)
        var flags: Word = 0
        if options.writeProtected { flags |= Flag.writeProtected }
        if options.inFork == .unserved { flags |= Flag.unservedInFork }
        if options.registration == .byOwner { flags |= Flag.registeredByOwner }
        if options.failure.ending == .killOwner { flags |= Flag.killsOwner }
        set(slot, .id, Word(entry.id))
        set(slot, .start, Word(entry.range.start))
        set(slot, .count, Word(entry.range.count))
        set(slot, .offset, Word(entry.offset))
        set(slot, .pageSize, Word(options.pageSize.bytes))
        set(slot, .flags, flags)
        set(slot, .readAhead, Word(options.readAhead.maximumPages))
        set(slot, .retries, Word(options.failure.retries))
        set(slot, .backOff, options.failure.backOff.wholeNanoseconds)
        set(slot, .states, Word(entry.states))
        set(slot, .state, SlotState.adding)
    }

    /// Says that a region is served.
    func commit(_ slot: Int) { set(slot, .state, SlotState.served) }

    /// Forgets a region, to which no span refers.
    ///
    /// Of one that was damaged meanwhile, nobody knows where its states were.
    func free(_ slot: Int) {
        let entry = try? entry(slot)
        set(slot, .state, SlotState.free)
        if let entry { freeStates(at: entry.states, pages: entry.pages) }
    }

    /// The regions that are served; others are forgotten.
    ///
    /// - Throws: ``PagerError/state(_:)`` if one of them, or one that is to be forgotten, cannot be.
    func entries() throws(PagerError) -> [Entry] {
        var served: [Entry] = []
        var all: [Entry] = []
        for slot in 0..<Self.slotCount where get(slot, .state) != SlotState.free {
            let entry = try entry(slot)
            all.append(entry)
            switch get(slot, .state) {
            case SlotState.served: served.append(entry)
            case SlotState.adding: continue
            default: throw Self.damaged
            }
        }
        all.sort { $0.states < $1.states }
        // What one of them forgets is not another's.
        guard Set(served.map(\.id)).count == served.count,
            zip(all, all.dropFirst()).allSatisfy({ $0.endOfStates <= $1.states })
        else { throw Self.damaged }
        return served
    }

    /// Forgets regions that were being added, or that no span refers to any more.
    func freeAll(but kept: Set<Int>) {
        for slot in 0..<Self.slotCount where get(slot, .state) != SlotState.free && !kept.contains(slot) { free(slot) }
    }

    static var damaged: PagerError { .state("the state is damaged") }

    /// Further than any pager counts, and far from where counting on would end.
    private static var lastID: Int { 1 << 62 }

    private func entry(_ slot: Int) throws(PagerError) -> Entry {
        func number(_ field: Field) throws(PagerError) -> Int {
            guard let value = Int(exactly: get(slot, field)) else { throw Self.damaged }
            return value
        }
        let start = try number(.start)
        let count = try number(.count)
        let states = try number(.states)
        let offset = try number(.offset)
        let id = try number(.id)
        let end = Int(clamping: self[.end])
        guard let pageSize = PageSize(bytes: try number(.pageSize)), pageSize >= .base, count > 0, start > 0,
            !start.addingReportingOverflow(count).overflow, !offset.addingReportingOverflow(count).overflow,
            offset & (pageSize.bytes - 1) == 0, states >= Place.states, states & (PageSize.base.bytes - 1) == 0
        else { throw Self.damaged }
        let range = AddressRange(start: UInt(start), count: count)
        // Only whole pages can be counted without going beyond all numbers.
        guard range.isAligned(to: pageSize), states <= end,
            Self.bytesOfStates(pages: pageSize.pages(in: count)) <= end - states, id > 0, id <= Self.lastID
        else { throw Self.damaged }
        let flags = get(slot, .flags)
        let failure = FailurePolicy(
            retries: try number(.retries), backOff: .nanoseconds(try number(.backOff)),
            ending: flags & Flag.killsOwner != 0 ? .killOwner : .poison)
        let options = RegionOptions(
            pageSize: pageSize, readAhead: .adaptive(maximumPages: try number(.readAhead)), failure: failure,
            writeProtected: flags & Flag.writeProtected != 0,
            inFork: flags & Flag.unservedInFork != 0 ? .unserved : .absent,
            registration: flags & Flag.registeredByOwner != 0 ? .byOwner : .byPager)
        return Entry(slot: slot, id: id, range: range, offset: offset, options: options, states: states)
    }

    /// Where the regions are now.
    ///
    /// - Returns: Spans, and whether each waits for the event that says where it went.
    func spans(of regions: [Int: RegionReference]) throws(PagerError) -> [(span: Span, isStale: Bool)] {
        let table = currentTable
        let live = tableWord(table, 0)
        let stale = tableWord(table, 1)
        guard live <= Word(Self.spanLimit), stale <= Word(Self.spanLimit) - live else { throw Self.damaged }
        var spans: [(Span, Bool)] = []
        for index in 0..<Int(live + stale) {
            let words = (0..<Self.wordsPerSpan).map { tableWord(table, 2 + index * Self.wordsPerSpan + $0) }
            guard words.allSatisfy({ $0 < 1 << 62 }) else { throw Self.damaged }
            // One that was being added is not.
            guard let region = regions[Int(words[2])] else { continue }
            let range = AddressRange(start: UInt(words[0]), count: Int(words[1]))
            let page = Int(words[3]) - 1
            guard !range.isEmpty, range.isAligned(to: region.pageSize), region.pageSize.holds(Int(words[4])),
                page < 0 || page <= region.pageCount - range.count >> region.pageShift
            else { throw Self.damaged }
            let states = page < 0 ? nil : region.states.advanced(by: page)
            let span = Span(range: range, region: region, states: states, offset: Int(words[4]))
            spans.append((span, index >= Int(live)))
        }
        return spans
    }
}
