internal import UserfaultFD

// What a fault led to, for the trace. Runs on every thread that serves, where faults are traced.

extension PagerCore where Source: ~Copyable {
    /// Serves a fault, and keeps what became of it.
    @inline(never)
    func serveTraced(
        _ pending: PendingFault, of memory: ServedMemory, with bench: inout Workbench, readsAhead: Bool
    ) -> Served {
        let address = pending.fault.address
        let (region, cause) = memory.sharingOrder { _, machine in
            (
                machine.spans.find(address)?.region.id,
                memory.sendsSignals ? machine.cause(ofSignalAt: address) : .missing
            )
        }
        var pending = pending
        switch cause {
        case .missing: break
        case .protected: pending.fault = PageFault(address: address, flags: .writeProtect)
        // No fault of this pager's.
        case .nobodys, .lost: return .gone
        }
        bench.record.clearTimes()
        let served = serveUntraced(pending, of: memory, with: &bench, readsAhead: readsAhead)
        trace(pending, region, served, by: bench.record)
        return served
    }

    /// Keeps what became of a fault that a thread has just served.
    func trace(_ pending: PendingFault, _ region: Int?, _ served: Served, by record: ThreadRecord) {
        // Pages that nobody waits for have no fault.
        guard pending.since != 0 else { return }
        let isProtection = pending.fault.kind == .writeProtect || pending.fault.kind == .readWriteProtect
        let ending: TracedFault.Ending
        switch served {
        case .done where isProtection: ending = .unprotected
        case .done: ending = record.lastFill > 0 ? .filled : .nothingToDo
        case .left: ending = .nothingToDo
        case .failed: ending = .failed
        case .gone: ending = .unmapped
        case .later: ending = .postponed
        case .ended: ending = .ownerGone
        // It ends when its request is completed.
        case .pending: return
        }
        trace.put(
            TracedFault(
                number: 0, time: pending.since, fault: pending.fault, regionID: region, ending: ending,
                earlierAttempts: pending.attempts, load: record.lastLoad, fill: record.lastFill,
                service: MonotonicInstant.now.nanoseconds &- pending.since))
    }
}
