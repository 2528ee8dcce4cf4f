internal import Synchronization
internal import UserfaultFD

// Runs in signal handlers of the threads that touch served memory.

/// Serves the faults of one pager in the threads that have them.
///
/// What a handler of messages does, without messages: the kernel says where a thread faulted and not why.
@safe
final class InThreadServer<Source: PageSource & ~Copyable>: FaultServer, @unchecked Sendable {
    private let core: PagerCore<Source>
    private let memory: ServedMemory
    /// Counts times at which memory was given up: what threads look at that wait to ask their source again.
    private let removals = FutexWord()
    /// One for each seat, all of them made before the first fault; most are never used.
    let benches: UnsafeMutableBufferPointer<Workbench>

    init(_ core: PagerCore<Source>) throws(PagerError) {
        self.core = core
        memory = core.memories[0]
        unsafe benches = .allocate(capacity: Seats.count)
        for seat in 0..<Seats.count {
            let record = core.makeRecord(takesRow: false)
            do throws(UserfaultError) {
                unsafe benches.initializeElement(at: seat, to: try Workbench(record))
            } catch {
                core.retire(record)
                unsafe benches.extracting(..<seat).deinitialize()
                unsafe benches.deallocate()
                throw .kernel(error)
            }
        }
    }

    deinit {
        unsafe benches.deinitialize()
        unsafe benches.deallocate()
    }

    override func serve(_ address: UInt, at seat: Int, _ search: Search) -> FaultSignal.Answer {
        unsafe benches[seat].record.takeRow()
        let now = MonotonicInstant.now.nanoseconds
        var pending = PendingFault(fault: PageFault(address: address, flags: []), since: now)
        pending.isJustNow = true
        let seen = removals.changes
        let served = unsafe core.serve(pending, of: memory, with: &benches[seat], readsAhead: true)
        if case .done = served { return .served }
        return unsafe follow(served, address, search, with: &benches[seat], seen)
    }

    /// What follows for a fault whose page was not filled at once.
    ///
    /// - Parameter before: How many times memory had been given up before the first attempt.
    @inline(never)
    private func follow(
        _ first: PagerCore<Source>.Served, _ address: UInt, _ search: Search, with bench: inout Workbench,
        _ before: UInt32
    ) -> FaultSignal.Answer {
        var served = first
        var seen = before
        while true {
            switch served {
            case .done, .failed, .pending:
                return .served
            case .left:
                // A loader whose source touches such memory may wait for its own page.
                guard !core.ownThreads.contains(NativeThread.currentID) else { return refuse(address) }
                memory.awaitSettling(of: address)
                return .served
            case .gone:
                return answerRefused(address, search, by: bench.record)
            case .ended:
                return .unclaimed
            case .later(var again):
                again.isJustNow = false
                // A pause that ended with the service.
                if memory.sharingOrder({ _, _ in memory.isSealed }) { return .unclaimed }
                again.setDue()
                rest(again, until: Deadline(at: MonotonicInstant(nanoseconds: again.due)), &seen)
                served = core.serve(again, of: memory, with: &bench, readsAhead: true)
            }
        }
    }

    /// Waits until a fault is to be tried again, or its memory is given up: another attempt would count.
    private func rest(_ pending: PendingFault, until due: Deadline, _ seen: inout UInt32) {
        let region = region(at: pending.fault.address)
        while !due.hasPassed {
            if removals.changes != seen {
                seen = removals.changes
                guard region != nil, self.region(at: pending.fault.address) == region else { return }
            }
            removals.wait(while: seen, until: due)
        }
    }

    /// The region that an address is served for.
    private func region(at address: UInt) -> UInt? {
        memory.sharingOrder { _, machine in
            memory.isSealed ? nil : machine.spans.find(address).map { $0.region.bits }
        }
    }

    /// Whose an address is.
    private enum Standing {
        /// A region's.
        case known
        /// A region's, on a page that is lost.
        case lost
        /// This pager's descriptor's, and no region's.
        case stray
        /// Anybody else's.
        case foreign
    }

    /// - Parameter isInOrder: Whether the calling thread shares the order.
    private func standing(of address: UInt, _ search: Search, isInOrder: Bool = false) -> Standing {
        let cause =
            isInOrder
            ? memory.withinOrder { machine in machine.cause(ofSignalAt: address) }
            : memory.sharingOrder { _, machine in machine.cause(ofSignalAt: address) }
        return switch cause {
        case .missing, .protected: .known
        case .lost: .lost
        case .nobodys: search == .strays && core.isOurs(straying: address) ? .stray : .foreign
        }
    }

    /// What to say of a fault for which nothing could be filled.
    @inline(never)
    private func answerRefused(
        _ address: UInt, _ search: Search, by record: ThreadRecord
    ) -> FaultSignal.Answer {
        switch standing(of: address, search) {
        case .lost: .refused
        case .stray: answerStray(address, by: record)
        case .known, .foreign: .unclaimed
        }
    }

    private func answerStray(_ address: UInt, by record: ThreadRecord) -> FaultSignal.Answer {
        let answer = core.serveStray(at: address, by: record)
        // What a region has grown over is asked of no other server any more.
        let span = memory.sharingOrder { _, machine in machine.spans.find(address) }
        if let span, span.states == nil { FaultServers.forget(span.range, butFor: self) }
        return answer
    }

    override func forget(_ range: AddressRange) {
        guard memory.sharingOrder({ _, machine in machine.spans.overlaps(range) }) else { return }
        let forgotten = memory.excludingOthers(givingUp: true) { _, machine in
            (try? machine.apply(.unmap(range))) ?? nil
        }
        if let forgotten { memory.wake(forgotten) }
    }

    override func noteRemoval() {
        removals.signal()
        memory.noteSettling()
    }

    override func mayServe(_ address: UInt, _ search: Search) -> Bool {
        standing(of: address, search) != .foreign
    }

    /// What to say of a fault of a source.
    override func answerNested(_ address: UInt, at seat: Int, _ search: Search) -> FaultSignal.Answer {
        switch standing(of: address, search, isInOrder: unsafe benches[seat].record.asksInOrder) {
        case .lost: .refused
        case .known, .stray: refuse(address)
        case .foreign: .unclaimed
        }
    }

    /// The source has touched memory that it is to bring.
    private func refuse(_ address: UInt) -> FaultSignal.Answer {
        core.note(.selfDeadlock(thread: NativeThread.currentID, address: address))
        // The process may end before anybody is given the report.
        FaultSignal.complain("UserfaultPager: a source touched memory that it is to bring\n")
        return .refused
    }

    // MARK: The end

    override func depart() {
        core.faultServer.withLock { $0 = nil }
        for seat in 0..<Seats.count { core.retire(unsafe benches[seat].record) }
        if core.uses.leave() { core.close() }
    }
}
