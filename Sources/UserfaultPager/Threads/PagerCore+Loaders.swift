internal import Synchronization
internal import UserfaultFD

// What loaders do for one pager: faults that were handed over or that wait for another attempt, and pieces of jobs.

extension PagerCore where Source: ~Copyable {
    /// How long a loader works for one pager before it looks at the others, in nanoseconds.
    private static var turn: UInt64 { 200_000 }

    func serveFaults(with bench: inout Workbench, next: inout UInt64) -> Bool {
        guard queue.count > 0, enter(&bench) else { return false }
        let start = MonotonicInstant.now.nanoseconds
        var now = start
        var hasServed = false
        while now &- start < Self.turn, let item = queue.take(at: now, next: &next) {
            undisturbed { serve(item, with: &bench) }
            hasServed = true
            now = MonotonicInstant.now.nanoseconds
        }
        wakeLeftOut()
        leave(&bench)
        // Another may have passed this pager over, because it had as many loaders as it may have.
        if hasServed, queue.count > 0 { queue.wakeLoaders(1) }
        return hasServed
    }

    /// Has threads fault again whose faults the reader has left out, once the queue has room.
    func wakeLeftOut() {
        // Which they are nobody knows: all that wait look again, and one whose fault is in the queue has it there twice.
        if queue.regainsRoom() { forEachMemory { memory in memory.wakeAll() } }
    }

    func serveJob(_ priority: Job.Priority, with bench: inout Workbench, next: inout UInt64) -> Bool {
        guard enter(&bench) else { return false }
        guard runtime.beginPiece() else {
            leave(&bench)
            return false
        }
        let now = MonotonicInstant.now.nanoseconds
        let hasServed = takePiece(priority, at: now, with: &bench, next: &next)
        runtime.endPiece()
        leave(&bench)
        if hasServed { queue.wakeLoaders(1) }
        return hasServed
    }

    private func takePiece(
        _ priority: Job.Priority, at now: UInt64, with bench: inout Workbench, next: inout UInt64
    ) -> Bool {
        guard queue.window?.enter() ?? true else { return false }
        let job = queue.join(priority, at: now, next: &next)
        if let job { undisturbed { step(job, with: &bench) } }
        if queue.window?.leave() == true { queue.wakeLoaders(1) }
        return job != nil
    }

    /// Where threads serve themselves, no signal comes between whose handler could need what this thread has in hand, and a
    /// source that gets a `SIGBUS` ends the process, as it does in a thread that faults.
    private func undisturbed(_ body: () -> Void) {
        guard isInThread else { return body() }
        BlockedSignals.during { FaultSignal.serving(body) }
    }

    /// Does pieces of jobs on a thread that has just completed a request, so that no loader has to be woken for them.
    ///
    /// Several at a time, which costs less than one by one, and not too many: the thread is soon back at its source. What
    /// it leaves is for loaders, which the window wakes when many requests are missing.
    func askForMore(by record: ThreadRecord) {
        guard queue.hasJobs, let room = queue.window?.room, room > 0, uses.enterThread() else { return }
        defer { leaveThread() }
        var spare: Workbench?
        spareBench.withLock { swap(&$0, &spare) }
        guard var bench = spare.take() ?? (try? Workbench()) else { return }
        bench.record = record
        let now = MonotonicInstant.now.nanoseconds
        var next = UInt64.max
        for _ in 0..<min(room, 16) {
            guard
                takePiece(.prefetch, at: now, with: &bench, next: &next)
                    || takePiece(.populate, at: now, with: &bench, next: &next)
            else { break }
        }
        bench.record = .nobodys
        spare = consume bench
        spareBench.withLock { swap(&$0, &spare) }
    }

    /// Begins to work for this pager.
    ///
    /// - Returns: `false` if as many do as may, or if it has ended.
    private func enter(_ bench: inout Workbench) -> Bool {
        guard queue.enter() else { return false }
        guard uses.enterThread() else {
            queue.leave()
            return false
        }
        bench.record = borrowRecord()
        bench.record.nameTask(bench.thread)
        ownThreads.insert(bench.thread)
        return true
    }

    private func leave(_ bench: inout Workbench) {
        ownThreads.remove(bench.thread)
        giveBack(bench.record)
        queue.leave()
        leaveThread()
    }

    /// Has the calling thread do this pager's work until a job is over, or a deadline has passed.
    func work(until job: Job, or deadline: Deadline) throws(PagerError) {
        var bench = try asPagerError { () throws(UserfaultError) in try Workbench() }
        bench.thread = NativeThread.currentID
        while !job.isOver, !deadline.hasPassed {
            let seen = runtime.work.signals
            var next = UInt64.max
            if serveFaults(with: &bench, next: &next) || serveJob(job.priority, with: &bench, next: &next) { continue }
            if job.isOver { return }
            let due = Deadline(at: MonotonicInstant(nanoseconds: next))
            runtime.work.wait(while: seen, until: due.instant < deadline.instant ? due : deadline)
        }
    }

    /// Leaves a fault to the queue, for its next attempt.
    ///
    /// - Returns: `false` if nobody can be had who takes it.
    func postpone(_ pending: PendingFault, of memory: ServedMemory) -> Bool {
        guard memory.beginUse() else { return false }
        guard queue.put(WorkQueue.Item(pending: pending, memory: memory.number)) else {
            memory.endUse()
            return false
        }
        // Where there is nobody, the fault waits for who comes next: its thread is woken to fault anew.
        guard (try? runtime.needLoaders()) == nil else { return true }
        memory.wake(pending.fault.page(size: .base))
        return true
    }

    private func serve(_ item: WorkQueue.Item, with bench: inout Workbench) {
        let memory = memory(item.memory)
        let isForJob = item.pending.job != 0
        switch serve(item.pending, of: memory, with: &bench, readsAhead: !source.isSlow && !isForJob) {
        case .done:
            finishQueued(item.pending.job, failed: false)
            if source.isSlow, !isForJob { readAhead(of: item.pending, memory, with: &bench) }
        case .later(var again):
            // The event that it waits for is read by another thread, which needs no help for it.
            again.setDue()
            var next = item
            next.pending = again
            if queue.put(next) { return }
            memory.wake(again.fault.page(size: .base))
            finishQueued(item.pending.job, failed: false, isDirty: true)
        case .pending:
            break
        case .failed:
            finishQueued(item.pending.job, failed: true)
        case .left:
            // Another has the page in hand, and may fail: a job looks again.
            finishQueued(item.pending.job, failed: false, isDirty: true)
        case .gone:
            finishQueued(item.pending.job, failed: false)
        case .ended:
            noteEnd(of: memory)
            finishQueued(item.pending.job, failed: false)
        }
        memory.endUse()
    }
}
