internal import Synchronization
internal import UserfaultFD

// Faults at addresses of no region. Runs on every thread that serves, on callers that change the policy or add regions,
// and on the thread that stops.

extension PagerCore where Source: ~Copyable {
    /// Serves a fault at an address of no region.
    @inline(never)
    func serveStray(_ pending: PendingFault, of memory: ServedMemory, by record: ThreadRecord) -> Served {
        let fault = pending.fault
        let page = memory.strayPage(of: fault)
        guard fault.kind == .missing || fault.kind == .minor else {
            return unprotect(page, pending, of: memory, by: record)
        }
        let (policy, changes) = strays.withLock { ($0.policy, $0.changes) }
        if policy.isFinal || pending.mayBeForeign {
            // Its region was removed since, or has come again.
            let (isKnown, objection) = memory.sharingOrder { uffd, machine in
                (machine.spans.find(page.start)?.states != nil, uffd.objection(to: page, fault.kind.mode))
            }
            if isKnown { return again(pending) }
            if let objection {
                countStray(pending, by: record)
                return follow(objection, pending, page, of: memory)
            }
        }
        let answer: StrayPolicy.Answer
        switch policy.choice {
        case .always(.wait): answer = .wait
        case .always where memory.growRegion(over: page, askedBy: pending):
            // Its region's, and no stray.
            return follow(zeroStray(page, askedBy: pending, of: memory), pending, page, of: memory)
        case .always(let fixed): answer = fixed
        case .ask(let body):
            answer = body(
                StrayFault(address: fault.address, isWrite: fault.isWrite, adjoinsRegion: memory.adjoinsRegion(page)))
        }
        countStray(pending, by: record)
        switch answer {
        case .wait:
            switch memory.keepStray(pending, while: { strays.withLock { $0.changes } == changes }) {
            case .kept: return .done
            case .known, .over: return again(pending)
            case .sealed: return endStray(pending, of: memory)
            case .full: return poisonStray(page, pending, of: memory)
            }
        case .zeros:
            if let size = PageSize(bytes: page.count) { try? zeros.reserve(size) }
            return follow(zeroStray(page, askedBy: pending, of: memory), pending, page, of: memory)
        case .poison: return poisonStray(page, pending, of: memory)
        case .killOwner:
            note(.failed(address: page.start))
            // Who may not be killed must not wait for ever.
            return killOwner() ? .failed : poisonStray(page, pending, of: memory)
        }
    }

    private func countStray(_ pending: PendingFault, by record: ThreadRecord) {
        if pending.attempts == 0 { record.count(.strays) }
    }

    /// - Returns: ``FillOutcome/changing`` also in a pause, and where a region has come meanwhile; ``FillOutcome/noRange`` also
    ///   where the page is not this descriptor's any more.
    func zeroStray(_ page: AddressRange, askedBy pending: PendingFault, of memory: ServedMemory) -> FillOutcome {
        memory.sharingOrder { (uffd, machine) -> FillOutcome in
            // A region that came meanwhile, and is more than zeros.
            if isPaused || machine.spans.find(page.start)?.states != nil { return .changing }
            if let objection = uffd.objection(to: page, pending) { return objection }
            if page.count > zeros.range.count { return .failed }
            let outcome = FillOutcome { () throws(UserfaultError) in
                switch pending.fault.kind {
                case .minor: try uffd.continue(page)
                // The kernel has no zeros for huge pages.
                case _ where page.count > PageSize.base.bytes: try uffd.copy(from: zeros.range.start, to: page)
                case _: try uffd.zeropage(page)
                }
            }
            guard outcome == .exists, page.count > PageSize.base.bytes,
                Filling.whetherHugePageExists(page, protected: false, of: uffd) == .failed
            else { return outcome }
            // The pool is empty, or the page is there, which takes no poison.
            let answer = FillOutcome.poisoning(page, in: uffd)
            if answer == .done { note(.failed(address: page.start)) }
            return answer
        }
    }

    private func poisonStray(_ page: AddressRange, _ pending: PendingFault, of memory: ServedMemory) -> Served {
        follow(poisonStray(page, askedBy: pending, of: memory), pending, page, of: memory)
    }

    /// Fails closed where nobody knows what the page should hold.
    ///
    /// - Returns: As ``zeroStray(_:askedBy:of:)``.
    func poisonStray(_ page: AddressRange, askedBy pending: PendingFault, of memory: ServedMemory) -> FillOutcome {
        let outcome = memory.sharingOrder { (uffd, machine) -> FillOutcome in
            if isPaused || machine.spans.find(page.start) != nil { return .changing }
            if let objection = uffd.objection(to: page, pending) { return objection }
            return FillOutcome.poisoning(page, in: uffd)
        }
        if outcome == .done { note(.failed(address: page.start)) }
        return outcome
    }

    /// Ends a fault that is to wait, in a pager that has stopped: nobody would let it go.
    func endStray(_ pending: PendingFault, of memory: ServedMemory) -> Served {
        let page = pending.fault.page(size: .base)
        let outcome = memory.sharingOrder { uffd, _ in
            memory.endStray(pending.fault, poisoning: poisonsStrays, uffd)
        }
        if outcome == .done { memory.wake(page) }
        return follow(outcome, pending, page, of: memory)
    }

    /// Ends a fault that no thread has come to when the pager stopped: threads in regions were woken then.
    func endStray(_ pending: PendingFault, ifSealed memory: ServedMemory) {
        guard pending.job == 0, memory.sharingOrder({ _, _ in memory.isSealed }) else { return }
        _ = endStray(pending, of: memory)
    }

    /// Whether the end of the pager poisons pages of no region for which threads wait.
    ///
    /// Not those that were to be zeros, and were kept because of a pause.
    var poisonsStrays: Bool {
        if case .always(.zeros) = strays.withLock({ $0.policy.choice }) { return false }
        return !leavesZeros.load(ordering: .relaxed)
    }

    /// Has what happens to strays decided anew, for those that wait as well.
    ///
    /// - Throws: ``PagerError/configuration(_:)`` for one that threads which serve themselves cannot follow.
    func setStrayPolicy(_ policy: StrayPolicy) throws(PagerError) {
        guard !isInThread || policy.suitsSignalHandlers else { throw .configuration(StrayPolicy.refusalInThread) }
        // What it was before goes after the lock: threads wait for that which must not wait for the heap.
        var before = policy
        // A handler of the program's may touch a stray.
        BlockedSignals.during(if: isInThread) {
            strays.withLock { strays in
                swap(&strays.policy, &before)
                strays.changes += 1
            }
        }
        forEachMemory { memory in memory.releaseStrays() }
    }
}

extension ServedMemory {
    /// The page of a fault of no region, whose size only the kernel knows.
    func strayPage(of fault: PageFault) -> AddressRange {
        // In the order, as all calls for children.
        sharingOrder { uffd, _ in uffd.strayPage(of: fault) }
    }
}

extension UserfaultFD {
    /// The page of a fault of no region; in the order.
    func strayPage(of fault: PageFault) -> AddressRange {
        registeredPage(holding: fault.address, modes: fault.kind.mode)
    }

    /// Why nothing is to be done to a page of no region: it may have become another's since its thread has faulted.
    ///
    /// In the order.
    ///
    /// - Returns: `nil` if it is this descriptor's.
    func objection(to page: AddressRange, _ pending: PendingFault) -> FillOutcome? {
        pending.mayBeForeign ? objection(to: page, pending.fault.kind.mode) : nil
    }

    func objection(to page: AddressRange, _ mode: RegisterModes) -> FillOutcome? {
        switch holder(of: page, modes: mode) {
        case .thisDescriptor: nil
        case .changing: .changing
        case .processGone: .processGone
        case .another, .nobody: .noRange
        }
    }
}

extension PageFault.Kind {
    /// The mode of registration that such faults come from.
    fileprivate var mode: UserfaultFD.RegisterModes {
        switch self {
        case .minor: .minor
        case .writeProtect: .writeProtect
        case .readWriteProtect: .readWriteProtect
        default: .missing
        }
    }
}

extension ServedMemory {
    /// What became of a stray that is to wait.
    enum Keeping {
        case kept
        /// A region has come to have it.
        case known
        /// What it was to wait for has come.
        case over
        /// Nothing is served any more.
        case sealed
        /// No further one can be kept.
        case full
    }

    /// Leaves a thread waiting, until ``releaseStrays(in:)`` or the end.
    ///
    /// - Parameter isMeant: Whether it is still to wait. Asked in the lock: what changes that comes either before, or after, and
    ///   releases what is kept.
    func keepStray(_ pending: PendingFault, while isMeant: () -> Bool) -> Keeping {
        // In the order: a region comes either before, and is found, or after, and releases what is kept. So does the end.
        sharingOrder { _, machine in
            guard machine.spans.find(pending.fault.address) == nil else { return .known }
            guard !isSealed else { return .sealed }
            let page = pending.fault.page(size: .base)
            return kept.withLock { kept in
                guard isMeant() else { return .over }
                for index in 0..<kept.count where page.contains(kept[index].fault.address) { return .kept }
                return kept.append(pending) ? .kept : .full
            }
        }
    }

    /// Lets threads fault again whose faults were kept.
    ///
    /// Takes no memory from the heap: runs on the thread that reads of a fork, and holds a lock that this one needs.
    ///
    /// - Parameter range: Those at its addresses; `nil` for all.
    func releaseStrays(in range: AddressRange? = nil) {
        kept.withLock { kept in
            kept.removeAll { fault in
                guard range?.contains(fault.address) ?? true else { return false }
                wake(fault.page(size: .base))
                return true
            }
        }
    }

    /// Poisons pages that threads still wait for, or leaves them as nobody's.
    ///
    /// - Returns: ``FillOutcome/done``; ``FillOutcome/changing`` where the program must first go on;
    ///   ``FillOutcome/failed`` where a page could not be poisoned.
    func endStrays(
        poisoning: Bool, _ machine: borrowing PagerStateMachine, _ uffd: borrowing UserfaultFD
    ) -> FillOutcome {
        kept.withLock { kept in
            while kept.count > 0 {
                let fault = kept[kept.count - 1].fault
                if machine.spans.find(fault.address) == nil {
                    let outcome = endStray(fault, poisoning: poisoning, uffd)
                    if outcome == .processGone { return .done }
                    if outcome == .changing || outcome == .failed { return outcome }
                }
                try? uffd.wake(fault.page(size: .base))
                kept.removeLast()
            }
            return .done
        }
    }

    /// Poisons the page of a fault, or leaves it as nobody's; a page that is there and protected can be written.
    ///
    /// In the order. Its thread is still to be woken.
    func endStray(_ fault: PageFault, poisoning: Bool, _ uffd: borrowing UserfaultFD) -> FillOutcome {
        let page = uffd.strayPage(of: fault)
        switch uffd.holder(of: page, modes: fault.kind.mode) {
        case .changing: return .changing
        case .processGone: return .processGone
        case .another, .nobody: return .done
        case .thisDescriptor where !poisoning:
            uffd.letGo(of: page)
            return .done
        case .thisDescriptor where fault.kind == .writeProtect:
            return FillOutcome { () throws(UserfaultError) in try uffd.writeProtect(page, .unprotect) }
        case .thisDescriptor where fault.kind == .readWriteProtect:
            return FillOutcome { () throws(UserfaultError) in try uffd.rwProtect(page, .unprotect) }
        case .thisDescriptor:
            return FillOutcome.poisoning(page, in: uffd)
        }
    }

    // MARK: Growth

    /// Whether a page on which a thread has just faulted lies in one mapping with a region.
    func adjoinsRegion(_ page: AddressRange) -> Bool {
        sharingOrder { uffd, machine in
            let growth = machine.growth(to: page)
            if Self.isOneMapping(growth.upwards, uffd) { return true }
            return Self.isOneMapping(growth.downwards, uffd)
        }
    }

    /// Has a region reach over memory that its mapping has grown by.
    ///
    /// - Returns: `false` where the page is no region's.
    func growRegion(over page: AddressRange, askedBy pending: PendingFault) -> Bool {
        excludingOthers { uffd, machine in
            guard !isSealed, uffd.objection(to: page, pending) == nil else { return false }
            // Another thread was faster.
            if let span = machine.spans.find(page.start) { return span.states == nil }
            let growth = machine.growth(to: page)
            var reach = Self.reach(of: growth.upwards, uffd, machine)
            if reach == nil { reach = Self.reach(of: growth.downwards, uffd, machine) }
            guard let reach else { return false }
            return (try? machine.grow(reach)) != nil
        }
    }

    /// What a region has grown over behind a part of it, and nobody has touched.
    static func growth(
        behind span: Span, _ uffd: borrowing UserfaultFD, _ machine: borrowing PagerStateMachine
    ) -> AddressRange? {
        let page = AddressRange(start: span.range.end, count: span.region.pageSize.bytes)
        guard span.range.end > 0, page.end > page.start else { return nil }
        return reach(of: machine.growth(to: page).upwards, uffd, machine)?.added
    }

    private static func isOneMapping(_ growth: Growth?, _ uffd: borrowing UserfaultFD) -> Bool {
        guard let growth else { return false }
        return uffd.probe(growth.reach) == .thisDescriptor
    }

    /// How far a region has grown: in steps that become twice as large until one is too large, and then half as large.
    private static func reach(
        of growth: Growth?, _ uffd: borrowing UserfaultFD, _ machine: borrowing PagerStateMachine
    ) -> Growth? {
        guard var reach = growth, machine.canGrow(reach), isOneMapping(reach, uffd) else { return nil }
        let page = reach.region.pageSize.bytes
        var step = page
        var isTooLarge = false
        while step >= page {
            if let wider = reach.widened(by: step), machine.canGrow(wider), isOneMapping(wider, uffd) {
                reach = wider
            } else {
                isTooLarge = true
            }
            step = isTooLarge ? step / 2 : step * 2
        }
        return reach
    }
}
