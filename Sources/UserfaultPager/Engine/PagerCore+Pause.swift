internal import Synchronization
internal import UserfaultFD

// A pause of all service. Runs on the threads of callers.

extension PagerCore where Source: ~Copyable {
    /// Lets nothing change any page.
    ///
    /// - Throws: ``PagerError/notRunning`` for a pager that stops: it would wait for the end of the pause.
    func pause() throws(PagerError) {
        try phase.withLock { (phase) throws(PagerError) in
            guard phase != .stopped else { throw .notRunning }
            setPaused(true)
        }
    }

    /// Goes on: whoever has faulted meanwhile faults again.
    func resume() {
        phase.withLock { phase in
            setPaused(false)
            // One that stops poisons them, and may not read of them again.
            if phase != .stopped { forEachMemory { memory in memory.releaseStrays() } }
        }
        forEachMemory { memory in memory.wakeAll() }
    }

    private func setPaused(_ isPaused: Bool) {
        // Who fills shares the order and looks inside it: when it was had alone, nobody fills any more.
        paused.store(isPaused, ordering: .sequentiallyConsistent)
        queue.holdJobs(isPaused)
        forEachMemory { memory in memory.excludingOthers { _, _ in } }
    }

    /// What becomes of a fault during a pause: its thread waits on, and is woken at the end.
    func hold(_ pending: PendingFault, of memory: ServedMemory) -> Served {
        // Work for which no thread waits would be forgotten, and a thread that serves itself waits nowhere else.
        guard pending.job != 0 || memory.sendsSignals else { return holdStray(pending, of: memory) }
        return again(pending, after: 1_000_000)
    }

    /// Keeps a fault of no region, so that it is not forgotten if the pager stops before the pause is over.
    private func holdStray(_ pending: PendingFault, of memory: ServedMemory) -> Served {
        switch memory.keepStray(pending, while: { isPaused }) {
        // At the end of the pause every thread is woken.
        case .kept, .known, .over: return .done
        case .sealed: return endStray(pending, of: memory)
        case .full: return again(pending)
        }
    }
}

extension ServedMemory {
    /// Has every thread fault again that waits for this descriptor, wherever.
    func wakeAll() {
        let page = UInt(PageSize.base.bytes)
        // The lowest address that any program may map, up to the highest that the kernel takes: machines differ.
        for bits in stride(from: UInt(57), to: 30, by: -1) {
            let range = AddressRange(start: 65536, end: 1 << bits &- page)
            let isTaken = withDescriptor { uffd in (try? uffd.wake(range)) != nil }
            if isTaken { return }
        }
    }
}
