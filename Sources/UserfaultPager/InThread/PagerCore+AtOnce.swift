internal import UserfaultFD

// The shortest way of a fault. Runs in signal handlers of the threads that fault.

extension PagerCore where Source: ~Copyable {
    /// What a fault led to in the order in which its page was looked up.
    enum Turn {
        case order(Order)
        /// The page is there, since a moment.
        case filled(AddressRange, at: UInt64, isAwaited: Bool)
    }

    /// Fills one page in the order in which it was looked up, if nothing has to be waited for.
    ///
    /// - Returns: `nil` where that takes more than one call: nothing has come of it then.
    @inline(__always)
    func fillAtOnce(
        _ claim: Claim, of uffd: borrowing UserfaultFD, _ machine: borrowing PagerStateMachine,
        with bench: inout Workbench
    ) -> Turn? {
        guard claim.pages == 1 else { return nil }
        var filling: Filling
        switch claim.content {
        // Where a region has grown the file may have the page.
        case .zeros where claim.states != nil: filling = .zeros
        case .file: filling = .file
        case .source where answersAtOnce:
            guard let answer = askInOrder(claim, with: &bench) else { return nil }
            filling = answer.filling
            bench.record.recordLoad(0)
        case .source, .zeros, .poison: return nil
        }
        if case .poison = filling { return nil }
        guard filling.fill(claim, of: uffd, zeros: zeros) == .done else { return nil }
        let end = MonotonicInstant.now.nanoseconds
        bench.record.count(.done, of: filling, claim, isDemand: true)
        return .filled(claim.range, at: end, isAwaited: machine.settle(claim, .done, at: end).wake != nil)
    }

    /// By itself, because of what a call of a source takes of the language's runtime.
    @inline(never)
    private func askInOrder(_ claim: Claim, with bench: inout Workbench) -> Answer? {
        bench.record.asksInOrder = true
        defer { bench.record.asksInOrder = false }
        return ask(claim, with: &bench)
    }
}
