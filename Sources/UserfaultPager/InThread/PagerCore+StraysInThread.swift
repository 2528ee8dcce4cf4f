internal import Synchronization
internal import UserfaultFD

// Faults at addresses of no region, in the threads that have them. Runs in signal handlers.

extension PagerCore where Source: ~Copyable {
    /// Whether an address of no region is memory of this pager's descriptor: most are not, and their signals are the
    /// program's.
    func isOurs(straying address: UInt) -> Bool {
        let page = AddressRange.page(holding: address, size: .base)
        return memories[0].withDescriptor { uffd in uffd.holder(of: page, modes: .missing) } == .thisDescriptor
    }

    /// Does what the policy says of a fault of no region.
    ///
    /// - Returns: ``FaultSignal/Answer/unclaimed`` where the thread may go on, or comes back to be refused.
    func serveStray(at address: UInt, by record: ThreadRecord) -> FaultSignal.Answer {
        var pending = PendingFault(fault: PageFault(address: address, flags: []), since: 0)
        pending.isUncertain = true
        let memory = memories[0]
        let page = AddressRange.page(holding: address, size: .base)
        let isGrowth = strayAnswer != .zeros && memory.growRegion(over: page, askedBy: pending)
        if !isGrowth { record.count(.strays) }
        let isZeros = isGrowth || strayAnswer == .zeros
        let outcome =
            isZeros ? zeroStray(page, askedBy: pending, of: memory) : poisonStray(page, askedBy: pending, of: memory)
        switch outcome {
        case .done where isZeros: return .served
        case .done:
            if strayAnswer == .killOwner { killOwner() }
            return .refused
        case .changing:
            // A pause, or a region that has come.
            pauseThread(for: .microseconds(50))
            return .served
        case .exists:
            // The page is there, in the file or protected: the signal does not say what kept the thread from it.
            if isZeros {
                pending.fault = PageFault(address: address, flags: .minor)
                _ = zeroStray(page, askedBy: pending, of: memory)
            }
            memory.withDescriptor { uffd in try? uffd.writeProtect(page, .unprotect) }
            return .unclaimed
        case .noRange, .stopped, .processGone: return .unclaimed
        case .failed, .noPage:
            note(.failed(address: page.start))
            return .refused
        }
    }

    /// What the policy says of every fault: no other is taken where threads serve themselves.
    private var strayAnswer: StrayPolicy.Answer {
        if case .always(let answer) = strays.withLock({ $0.choice }) { return answer }
        return .poison
    }
}
