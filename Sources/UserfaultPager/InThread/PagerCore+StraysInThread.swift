internal import Synchronization
internal import UserfaultFD

// Faults at addresses of no region, in the threads that have them. Runs in signal handlers.

extension PendingFault {
    /// One at an address of no region, of which no message tells.
    init(straying address: UInt) {
        self.init(fault: PageFault(address: address, flags: []), since: 0)
        isUncertain = true
    }
}

extension PagerCore where Source: ~Copyable {
    /// Whether an address of no region is memory of this pager's descriptor: most are not, and their signals are the
    /// program's.
    func isOurs(straying address: UInt) -> Bool {
        memories[0].withDescriptor { uffd in
            let page = uffd.strayPage(of: PageFault(address: address, flags: []))
            return uffd.holder(of: page, modes: .missing) == .thisDescriptor
        }
    }

    /// Does what the policy says of a fault of no region.
    ///
    /// - Returns: ``FaultSignal/Answer/unclaimed`` where the thread may go on, or comes back to be refused.
    func serveStray(at address: UInt, by record: ThreadRecord) -> FaultSignal.Answer {
        let pending = PendingFault(straying: address)
        let memory = memories[0]
        let page = memory.strayPage(of: pending.fault)
        let isGrowth = strayAnswer != .zeros && memory.growRegion(over: page, askedBy: pending)
        let isZeros = isGrowth || strayAnswer == .zeros
        let outcome: FillOutcome
        if isZeros {
            let isMapped = mapFromFile(page, askedBy: pending, of: memory)
            outcome = isMapped ? .done : zeroStray(page, askedBy: pending, of: memory)
        } else {
            outcome = poisonStray(page, askedBy: pending, of: memory)
        }
        // A thread that is to wait comes again.
        if !isGrowth, outcome != .changing { record.count(.strays) }
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
            return letThrough(to: page, of: memory) ? .served : .unclaimed
        case .noRange, .stopped, .processGone: return .unclaimed
        case .failed, .noPage:
            note(.failed(address: page.start))
            return .refused
        }
    }

    /// Maps a page of which nothing is remembered and which a file has already: it is not missing, and the signal does not
    /// tell.
    func mapFromFile(_ page: AddressRange, askedBy pending: PendingFault, of memory: ServedMemory) -> Bool {
        memory.sharingOrder { uffd, machine in
            guard !isPaused, machine.spans.find(page.start)?.states == nil, uffd.objection(to: page, pending) == nil
            else { return false }
            return FillOutcome { () throws(UserfaultError) in try uffd.continue(page) } == .done
        }
    }

    /// Whether a page that its region has grown over was in the file, and is mapped now.
    @inline(__always)
    func isInFile(_ claim: Claim, askedBy pending: PendingFault, of memory: ServedMemory) -> Bool {
        claim.states == nil && memory.sendsSignals && claim.region.isOwedAgain
            && mapFromFile(claim.range, askedBy: pending, of: memory)
    }

    /// Lets a thread through to a page of which nothing is remembered and which is there: it may be protected, the signal
    /// does not tell.
    ///
    /// - Returns: `false` if nobody can read the page: it is lost, or past the end of its file.
    func letThrough(to page: AddressRange, of memory: ServedMemory) -> Bool {
        memory.sharingOrder { uffd, machine in
            // To be looked up again, or held.
            if isPaused || machine.spans.find(page.start)?.states != nil { return true }
            try? uffd.writeProtect(page, .unprotect)
            // A copy of the page to itself is refused: because the page is there, or before, because it cannot be read.
            let outcome = FillOutcome { () throws(UserfaultError) in try uffd.copy(from: page.start, to: page) }
            guard outcome == .exists, page.count > PageSize.base.bytes else { return outcome == .exists }
            // The pool may be what is empty.
            return (try? AddressSpace.isResident(page.part(at: 0, count: PageSize.base.bytes))) ?? true
        }
    }

    /// What the policy says of every fault: no other is taken where threads serve themselves.
    private var strayAnswer: StrayPolicy.Answer {
        if case .always(let answer) = strays.withLock({ $0.policy.choice }) { return answer }
        return .poison
    }
}
