internal import UserfaultFD

// Pages for which nobody waits. Runs on every thread that serves.

extension PagerCore where Source: ~Copyable {
    /// Pages that were filled, or asked for, and for which nobody waits: in numbers alone, which outlive their region.
    struct FilledAhead {
        let range: AddressRange
        let pages: Int
        /// Where the next ones begin.
        ///
        /// A source may answer for fewer pages than it was asked for; those that are asked for are all on their way.
        let next: UInt

        init(_ claim: Claim, isRequested: Bool) {
            range = claim.range
            pages = claim.pages
            let decided = max(claim.region.pageSize.bytes, claim.decidedBytes)
            next = isRequested ? claim.range.end : claim.range.start &+ UInt(decided)
        }
    }

    /// Fills pages for which nobody waits.
    ///
    /// - Parameters:
    ///   - page: One on which a thread has just faulted; `nil` if the kernel has to be asked whose memory it is.
    ///   - claiming: Takes them in hand.
    /// - Returns: What was filled, or `nil`.
    func fillUnasked(
        of memory: ServedMemory, with bench: inout Workbench, after page: AddressRange? = nil,
        _ claiming: (borrowing PagerStateMachine) -> Claim?
    ) -> FilledAhead? {
        var now: UInt64 = 0
        let claim = memory.sharingOrder { _, machine -> Claim? in
            let claim = claiming(machine)
            if let claim {
                now = MonotonicInstant.now.nanoseconds
                bench.record.begin(claim.range.start, region: claim.region.bits, since: now)
            }
            return claim
        }
        guard var claim else { return nil }
        // After that the region may be freed: nothing that refers to it is returned.
        defer { bench.record.end() }
        if let page {
            let both = AddressRange(start: page.start, end: claim.range.end)
            guard memory.isInOneMapping(both) else {
                giveBack(claim, of: memory)
                return nil
            }
        } else if claim.pages > 1 || !isAsynchronous {
            // One page that comes later is only looked at then: filling it asks the same again.
            guard let confined = confine(claim, of: memory) else { return nil }
            claim = confined
        }
        let nobody = PendingFault(fault: PageFault(address: claim.range.start, flags: []), since: 0)
        switch fill(claim, for: nobody, of: memory, with: &bench, at: now) {
        case .done, .pending: return FilledAhead(claim, isRequested: isAsynchronous)
        case .left, .failed, .gone, .later, .ended: return nil
        }
    }
}
