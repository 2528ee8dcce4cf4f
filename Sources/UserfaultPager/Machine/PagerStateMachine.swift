internal import UserfaultFD

/// What happened to the address space.
enum Change: Hashable {
    case remove(AddressRange)
    case unmap(AddressRange)
    case remap(from: UInt, to: UInt, count: Int)
}

/// What a descriptor's faults, events and completions lead to: no system call, no thread and no clock in it.
///
/// ``apply(_:)`` excludes everything else. What does not mutate may be called by several threads at once: they meet in
/// the pages' states only. The rules, each of which a test breaks:
///
/// * Every fault that was read is answered by a wake that covers it: that of a fill, or one of its own.
/// * A fill is decided and done with no change between: what was loaded before a change is looked up again.
/// * A removed page is zeros from then on.
/// * A page that cannot be loaded is poisoned, never zeros.
struct PagerStateMachine: ~Copyable {
    private(set) var spans: SpanTable
    /// What was at addresses that other memory was moved to before the event that says where it went: the kernel lets
    /// go of an address first, and tells of it later.
    private(set) var stale: SpanTable
    /// How many changes were applied.
    private(set) var changes: UInt64 = 0
    /// The states of a forked child's pages.
    ///
    /// Those of its parent are the regions'.
    private let childStates: Mapping?
    let moments: FillMoments

    init() throws(UserfaultError) {
        let spans = try SpanTable()
        let stale = try SpanTable(capacity: 16)
        let moments = try FillMoments()
        self.spans = spans
        self.stale = stale
        childStates = nil
        self.moments = moments
    }

    private init(
        spans: consuming SpanTable, stale: consuming SpanTable, states: consuming Mapping?,
        moments: consuming FillMoments
    ) {
        self.spans = spans
        self.stale = stale
        childStates = states
        self.moments = moments
    }

    /// What a child has at the moment of the fork: the same pages, none of them in hand.
    ///
    /// Takes memory by `mmap` only.
    func copyForChild() throws(UserfaultError) -> PagerStateMachine {
        var pages = 0
        for index in 0..<spans.count where spans[index].states != nil {
            pages += spans[index].range.count >> spans[index].region.pageShift
        }
        let memory = try Mapping(anonymous: max(1, pages) * PageStates.bytesPerPage, options: .noReserve)
        var copies = try SpanTable(capacity: spans.count + 16)
        var next = unsafe PageStates(memory.unsafeBaseAddress)
        for index in 0..<spans.count {
            var span = spans[index]
            if let states = span.states {
                let count = span.range.count >> span.region.pageShift
                for page in 0..<count where states[page] != [] {
                    next.copy(states[page].intersection(.lasting), to: page)
                }
                span.states = next
                next = next.advanced(by: count)
            }
            try copies.insert(span)
        }
        return PagerStateMachine(
            spans: copies, stale: try SpanTable(capacity: 16), states: memory, moments: try FillMoments())
    }

    // MARK: Regions

    /// Adds pages that the source fills.
    mutating func add(_ span: Span) throws(UserfaultError) {
        try spans.insert(span)
        changes += 1
    }

    /// Forgets one whole span, for which no memory is needed.
    mutating func forgetSpan(_ span: Span) {
        spans.removeSpan(startingAt: span.range.start)
        changes += 1
    }

    /// Forgets every span of a region.
    mutating func forgetSpans(of region: RegionReference) { forgetSpans { $0.region == region } }

    /// Forgets spans, for which no memory is needed.
    mutating func forgetSpans(where isForgotten: (Span) -> Bool) {
        var index = spans.count
        while index > 0 {
            index -= 1
            if isForgotten(spans[index]) { forgetSpan(spans[index]) }
        }
    }

    /// Adds what is known of another machine.
    ///
    /// - Returns: `false` if it overlaps what is there.
    mutating func restore(_ span: Span, isStale: Bool) throws(UserfaultError) -> Bool {
        guard isStale ? !stale.overlaps(span.range) : !spans.overlaps(span.range) else { return false }
        if isStale { try stale.insert(span) } else { try spans.insert(span) }
        return true
    }

    /// Forgets everything.
    mutating func forgetAll() {
        forgetSpans { _ in true }
        while stale.count > 0 { stale.removeSpan(startingAt: stale[0].range.start) }
    }

    // MARK: Changes

    /// Takes in what happened to the address space.
    ///
    /// - Returns: Whom to wake: threads that wait for an address that is no longer what it was.
    mutating func apply(_ change: Change) throws(UserfaultError) -> AddressRange? {
        changes += 1
        switch change {
        case .remove(let range):
            markRemoved(range)
            return nil
        case .unmap(let range):
            try unmap(range)
            return range
        case .remap(let from, let to, let count):
            let range = AddressRange(start: from, count: count)
            try move(range, to: to)
            return range
        }
    }

    private func markRemoved(_ range: AddressRange) {
        spans.forEach(in: range) { span in
            guard let states = span.states else { return }
            for page in 0..<(span.range.count >> span.region.pageShift) {
                states.update(page) { state in
                    // What was written may still be in the file.
                    let kept = state.intersection(.claimed.union(.awaited).union(.recorded).union(.written))
                    return span.region.isOwedAgain ? kept : kept.union(.removed).union(.written)
                }
            }
        }
    }

    /// Forgets what was unmapped, but not what has taken its place since.
    private mutating func unmap(_ range: AddressRange) throws(UserfaultError) {
        var start = range.start
        while let old = stale.firstPart(in: AddressRange(start: start, end: range.end)) {
            try spans.remove(AddressRange(start: start, end: old.range.start))
            try stale.remove(old.range)
            start = old.range.end
        }
        try spans.remove(AddressRange(start: start, end: range.end))
    }

    private mutating func move(_ range: AddressRange, to target: UInt) throws(UserfaultError) {
        var done = range.start
        while true {
            let rest = AddressRange(start: done, end: range.end)
            let old = leavingFirst(in: rest)
            // What was there first is what moves; in front of it lies what was never used anew.
            let fresh = AddressRange(start: done, end: old?.range.start ?? range.end)
            let part: Span
            if let live = spans.firstPart(in: fresh) {
                part = live
                try spans.remove(part.range)
                try spans.insert(Span(range: part.range, region: part.region, states: nil, offset: 0))
            } else if let old {
                part = old
                try stale.remove(part.range)
                try stale.insert(Span(range: part.range, region: part.region, states: nil, offset: 0))
            } else {
                return
            }
            // What stays behind is empty; where it was unmapped too, that event follows.
            done = part.range.end
            var moved = part
            moved.range = AddressRange(start: target &+ (part.range.start &- range.start), count: part.range.count)
            try setAside(moved.range)
            try spans.insert(moved)
        }
    }

    /// What was in a range before other memory came there, and has not left yet.
    ///
    /// Of memory that was left behind empty only the unmapping is outstanding: where something came since, that moves.
    private func leavingFirst(in range: AddressRange) -> Span? {
        var start = range.start
        while let old = stale.firstPart(in: AddressRange(start: start, end: range.end)) {
            if old.states != nil || spans.firstPart(in: old.range) == nil { return old }
            start = old.range.end
        }
        return nil
    }

    /// Puts aside what is known of a range that is about to be used anew.
    private mutating func setAside(_ range: AddressRange) throws(UserfaultError) {
        while let old = spans.firstPart(in: range) {
            try stale.remove(old.range)
            try stale.insert(old)
            try spans.remove(old.range)
        }
    }

    // MARK: Faults

    /// What is to be done for a fault.
    ///
    /// - Parameters:
    ///   - moment: When the message was read.
    ///   - isSignal: Whether it came as a signal, which says where, and not why.
    @inline(__always)
    func begin(_ fault: PageFault, readAt moment: UInt64, isSignal: Bool = false) -> Order {
        guard let span = spans.find(fault.address) else {
            return isSignal ? .refuse : .stray(fault.page(size: .base))
        }
        let range = fault.page(size: span.region.pageSize)
        let page = span.page(at: range.start)
        if isSignal, let order = span.order(forSignalAt: fault.address, in: range) { return order }
        let kind = fault.kind
        guard kind == .missing || kind == .minor else {
            return .unprotect(range)
        }
        var claim = Claim(
            range: range, states: span.states?.advanced(by: page), region: span.region,
            offset: span.offset + page &<< span.region.pageShift, content: .zeros, isAwaited: true, changes: changes)
        if let states = claim.states {
            let state = states.claim(0)
            if state.contains(.claimed) { return .leave }
            if !state.isDisjoint(with: .present.union(.poisoned)) {
                // Read before the page was filled: nothing is owed to this thread but to go on.
                if moments.mayAnswer(messageReadAt: moment, of: states.identity(of: 0)) {
                    _ = states.release(0)
                    return .wake(range)
                }
                // Filled before it faulted, as far as we know: a thread that comes back knows better.
                if !state.contains(.doubted) {
                    _ = states.release(0, setting: .doubted)
                    return .wake(range)
                }
            }
            claim.content = state.contains(.removed) || span.region.isHole(at: claim.offset) ? .zeros : .source
        }
        // A page that the file has may still be unfinished where the source is what writes the file.
        if kind == .minor, claim.content == .zeros || !span.region.isOwedAgain { claim.content = .file }
        return .fill(claim)
    }

    /// Takes pages in hand that follow those of a claim and that nobody has touched.
    ///
    /// - Parameter pages: The most pages to add.
    @inline(__always)
    func extend(_ claim: inout Claim, by pages: Int) {
        guard let span = spans.find(claim.range.start), span.range.contains(claim.range.end),
            let further = self.claim(at: claim.range.end, count: pages)
        else { return }
        claim.range = AddressRange(start: claim.range.start, end: further.range.end)
    }

    /// Takes pages in hand that nobody has touched.
    ///
    /// - Returns: At most `count` pages, or `nil` where the first of them is not to be had.
    func claim(at address: UInt, count: Int) -> Claim? {
        guard count > 0, let span = spans.find(address), let states = span.states else { return nil }
        let first = span.page(at: address)
        guard let data = span.dataPages(from: first), data.lowerBound == first else { return nil }
        let limit = min(count, data.count)
        var claimed = 0
        while claimed < limit, states.claimUntouched(first + claimed) { claimed += 1 }
        guard claimed > 0 else { return nil }
        let shift = span.region.pageShift
        let start = span.range.start &+ UInt(first << shift)
        return Claim(
            range: AddressRange(start: start, count: claimed << shift), states: states.advanced(by: first),
            region: span.region, offset: span.offset + first << shift, content: .source, isAwaited: false,
            changes: changes)
    }
}
