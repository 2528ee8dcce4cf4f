internal import UserfaultFD

// What follows when pages in hand were filled, or were not. Runs on the threads that fill.

extension PagerStateMachine {
    /// Whether pages in hand are still what they were when they were taken.
    ///
    /// To be asked in the same exclusion from changes in which they are then filled.
    @inline(__always)
    func isCurrent(_ claim: Claim) -> Bool {
        claim.changes == changes || isUnchanged(claim)
    }

    @inline(never)
    private func isUnchanged(_ claim: Claim) -> Bool {
        guard let span = spans.find(claim.range.start), span.range.contains(claim.range) else { return false }
        guard span.states?.advanced(by: span.page(at: claim.range.start)) == claim.states else { return false }
        guard claim.content == .source || claim.content == .poison, let states = claim.states else { return true }
        for page in 0..<claim.pages where states[page].contains(.removed) { return false }
        return true
    }

    /// What follows from an answer of the kernel to a fill of pages in hand.
    ///
    /// - Parameter moment: When it answered.
    @inline(__always)
    func settle(_ claim: Claim, _ outcome: FillOutcome, at moment: UInt64) -> Settlement {
        if outcome == .done {
            let owed = finish(claim, bytes: claim.range.count, as: claim.filledState, at: moment)
            return Settlement(wake: owed ? claim.range : nil, next: .finished)
        }
        return settleShort(claim, outcome, at: moment)
    }

    @inline(never)
    private func settleShort(_ claim: Claim, _ outcome: FillOutcome, at moment: UInt64) -> Settlement {
        let first = claim.region.pageSize.bytes
        switch outcome {
        case .done:
            return settle(claim, .done, at: moment)
        case .stopped(let bytes):
            let owed = finish(claim, bytes: bytes, as: claim.filledState, at: moment)
            return Settlement(
                wake: owed ? claim.range.part(at: 0, count: bytes) : nil,
                next: .fill(claim.dropFirst(bytes)))
        case .exists:
            let page = claim.range.part(at: 0, count: first)
            finish(claim, bytes: first, as: claim.presentState, at: moment)
            let rest = claim.dropFirst(first)
            return Settlement(wake: page, next: rest.range.isEmpty ? .finished : .fill(rest))
        case .changing:
            let owed = release(claim, bytes: claim.range.count)
            return Settlement(wake: owed ? claim.range : nil, next: claim.isAwaited ? .again : .finished)
        case .noRange where claim.isAwaited && claim.pages > 1:
            let owed = release(claim.dropFirst(first), bytes: claim.range.count - first)
            return Settlement(
                wake: owed ? claim.range.dropFirst(first) : nil, next: .fill(claim.prefix(pages: 1)))
        case .noRange:
            // A thread that waits for what is not mapped any more has to find that out for itself.
            let owed = release(claim, bytes: claim.range.count)
            return Settlement(wake: owed || claim.isAwaited ? claim.range : nil, next: .gone)
        case .processGone:
            release(claim, bytes: claim.range.count)
            return Settlement(wake: nil, next: .ended)
        case .noPage where claim.content == .file:
            // It had it when the thread faulted: the thread looks again, and finds out what it is now.
            release(claim, bytes: claim.range.count)
            return Settlement(wake: claim.range, next: .finished)
        case .failed where claim.isAwaited, .noPage where claim.isAwaited:
            let owed = release(claim.dropFirst(first), bytes: claim.range.count - first)
            return Settlement(
                wake: owed ? claim.range.dropFirst(first) : nil, next: .failed(claim.prefix(pages: 1)))
        case .failed, .noPage:
            let owed = release(claim, bytes: claim.range.count)
            return Settlement(wake: owed ? claim.range : nil, next: .finished)
        }
    }

    /// Gives back pages that were not filled: because they have changed, or because a retry is to come later.
    ///
    /// - Returns: Whom to wake, where the program has these pages now: faults that were left to this service.
    func giveBack(_ claim: Claim) -> AddressRange? {
        var wake: AddressRange?
        guard let states = claim.states else { return nil }
        for page in 0..<claim.pages where states.release(page) {
            guard let address = spans.address(of: states.advanced(by: page)) else { continue }
            let here = AddressRange(start: address, count: claim.region.pageSize.bytes)
            wake = wake.map { AddressRange(start: min($0.start, here.start), end: max($0.end, here.end)) } ?? here
        }
        return wake
    }

    /// Gives pages back that were not filled.
    @discardableResult
    private func release(_ claim: Claim, bytes: Int) -> Bool {
        guard let states = claim.states else { return false }
        var owed = false
        for page in 0..<(bytes >> claim.region.pageShift) {
            if states.release(page) { owed = true }
        }
        return owed
    }

    /// Gives pages back whose fate the kernel has told.
    @inline(__always)
    @discardableResult
    private func finish(_ claim: Claim, bytes: Int, as state: PageState, at moment: UInt64) -> Bool {
        guard let states = claim.states else { return false }
        var owed = false
        for page in 0..<(bytes &>> claim.region.pageShift) {
            moments.note(moment, of: states.identity(of: page))
            if states.release(page, as: state) { owed = true }
        }
        return owed
    }
}
