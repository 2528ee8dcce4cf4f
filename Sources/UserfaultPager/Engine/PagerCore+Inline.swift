internal import Synchronization
internal import UserfaultFD

// Threads that read, load and fill in place. Runs on handlers; what reads runs on the reader too.

/// What a handler thread works with.
struct Handler: ~Copyable {
    var bench: Workbench
    var batch: EventBatch
    /// Messages of children that are let go.
    var spare = EventBatch(capacity: 16)
    /// Faults that came together with events, to be served after them.
    var faults: FaultList
    /// Faults to be tried again.
    var later: FaultList
    var waiter: Waiter
    /// Since when no descriptor is free for the child of a fork: 0 if one is, the last moment once that was reported.
    var lackSince: UInt64 = 0
    /// Which descriptors have messages, for a thread that reads several.
    var ready = ReadyBatch()

    /// - Parameter messages: The most that are read at once.
    init(
        _ waiting: PagerConfiguration.Waiting, processors: Int, messages: Int = 64, record: ThreadRecord = .nobodys
    ) throws(UserfaultError) {
        let bench = try Workbench(record)
        let faults = try FaultList(capacity: messages)
        let later = try FaultList(capacity: 1 << 10)
        self.bench = bench
        self.faults = faults
        self.later = later
        batch = EventBatch(capacity: messages)
        waiter = Waiter(waiting, processors: processors)
    }
}

extension PagerCore where Source: ~Copyable {
    /// What a handler thread does: reads faults and serves them, until the pager stops.
    func handle(_ memory: ServedMemory, with handler: inout Handler) throws(UserfaultError) {
        while !isStopping.load(ordering: .relaxed) {
            _ = try awaitMessages(memory, &handler)
            let now = MonotonicInstant.now.nanoseconds
            let isLate = memory.noteReading(of: handler.batch, at: now)
            while let fault = handler.batch.nextPageFault() {
                let pending = PendingFault(fault: fault, since: now, isUncertain: isLate)
                guard serveOrKeep(pending, of: memory, &handler) else { return }
            }
            guard handler.faults.isEmpty && handler.later.isEmpty else {
                guard serveLists(memory, &handler, now) else { return }
                continue
            }
        }
    }

    /// - Returns: `false` where the process whose memory it is has ended.
    @inline(__always)
    private func serveOrKeep(
        _ pending: PendingFault, of memory: ServedMemory, _ handler: inout Handler
    ) -> Bool {
        switch serve(pending, of: memory, with: &handler.bench, readsAhead: true) {
        case .done, .left, .gone, .failed, .pending:
            return true
        case .later(let again):
            keep(again, of: memory, &handler)
            return true
        case .ended:
            noteEnd(of: memory)
            return false
        }
    }

    /// Keeps a fault for its next attempt: here if it waits for an event that is still to be read, in the queue if it
    /// waits for time, in which this thread serves others.
    @inline(never)
    private func keep(_ pending: PendingFault, of memory: ServedMemory, _ handler: inout Handler) {
        var pending = pending
        let waitsForEvent = pending.due == 0 && memory.hasEvents && pending.attempts < 1024
        if !waitsForEvent { pending.setDue() }
        let isKept = waitsForEvent ? handler.later.append(pending) : postpone(pending, of: memory)
        // Where there is no room, the kernel keeps the fault for us: the thread looks again and faults anew.
        if !isKept { memory.wake(pending.fault.page(size: .base)) }
    }

    @inline(never)
    private func serveLists(
        _ memory: ServedMemory, _ handler: inout Handler, _ now: UInt64
    ) -> Bool {
        for index in 0..<handler.faults.count {
            guard serveOrKeep(handler.faults[index], of: memory, &handler) else { return false }
        }
        handler.faults.removeAll()
        // Each once: what is put back meanwhile has its turn after the next reading.
        for _ in 0..<handler.later.count {
            guard let pending = handler.later.takeDue(at: now) else { break }
            guard serveOrKeep(pending, of: memory, &handler) else { return false }
        }
        return true
    }

    // MARK: Reading

    /// Reads what there is, and waits for it where there is nothing else to do.
    @inline(__always)
    private func awaitMessages(_ memory: ServedMemory, _ handler: inout Handler) throws(UserfaultError) -> Int {
        if !handler.later.isEmpty { return try readMeanwhile(memory, &handler) }
        if configuration.waiting == .block { return try read(memory, &handler) }
        let budget = handler.waiter.budget()
        let learns = handler.waiter.learns
        let start = learns || budget > 0 ? MonotonicInstant.now.nanoseconds : 0
        defer { if learns { handler.waiter.learn(MonotonicInstant.now.nanoseconds &- start, budget: budget) } }
        if budget > 0, try look(until: start &+ budget, memory, &handler) { return handler.batch.count }
        let ready = try poll(memory.rawDescriptor, stopDescriptor, until: .never)
        if ready.first.hasError {
            // Another process that has the descriptor too has made it one that blocks.
            try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.setNonBlocking(true) }
        }
        return !ready.first.isReadable ? 0 : try read(memory, &handler)
    }

    /// Looks for messages without sleeping.
    private func look(
        until deadline: UInt64, _ memory: ServedMemory, _ handler: inout Handler
    ) throws(UserfaultError) -> Bool {
        repeat {
            if try read(memory, &handler) > 0 { return true }
        } while MonotonicInstant.now.nanoseconds < deadline && !isStopping.load(ordering: .relaxed)
        return false
    }

    /// Reads on while faults are kept: what they wait for is an event, which is queued after other faults.
    @inline(never)
    private func readMeanwhile(_ memory: ServedMemory, _ handler: inout Handler) throws(UserfaultError) -> Int {
        let count = try read(memory, &handler)
        if count > 0 { return count }
        // The event that was read may need its thread to run before fills are possible again.
        NativeThread.yield()
        let now = MonotonicInstant.now.nanoseconds
        let due = handler.later.nextDue ?? now
        guard due > now else { return 0 }
        let deadline = MonotonicInstant(nanoseconds: min(due, now + 100_000_000))
        _ = try poll(memory.rawDescriptor, until: Deadline(at: deadline))
        return try read(memory, &handler)
    }

    /// One reading, without waiting.
    ///
    /// Events are taken in before any fault is served.
    @inline(__always)
    private func read(_ memory: ServedMemory, _ handler: inout Handler) throws(UserfaultError) -> Int {
        guard memory.hasEvents else { return try memory.readFaults(into: &handler.batch) }
        return try readEvents(memory, &handler) ?? 0
    }

    /// One reading of a descriptor without events, for others to serve.
    func readFaults(_ memory: ServedMemory, _ handler: inout Handler) throws(UserfaultError) -> Int? {
        let count = try memory.readFaults(into: &handler.batch)
        let now = MonotonicInstant.now.nanoseconds
        let isLate = memory.noteReading(of: handler.batch, at: now)
        while let fault = handler.batch.nextPageFault() {
            _ = handler.faults.append(PendingFault(fault: fault, since: now, isUncertain: isLate))
        }
        return count
    }

    /// One reading, and all that it tells taken in.
    ///
    /// - Returns: `nil` where there is no descriptor free for the child of a fork, which waits until there is.
    @inline(never)
    func readEvents(_ memory: ServedMemory, _ handler: inout Handler) throws(UserfaultError) -> Int? {
        try memory.excludingOthers { (uffd, machine) throws(UserfaultError) -> Int? in
            guard let count = try memory.read(uffd, into: &handler.batch) else { return nil }
            let now = count > 0 ? MonotonicInstant.now.nanoseconds : 0
            let isLate = count > 0 && memory.noteReading(of: handler.batch, at: now)
            while let event = handler.batch.next() {
                switch consume event {
                case .pagefault(let fault):
                    // There is room: the list is as long as the batch, and empty.
                    _ = handler.faults.append(PendingFault(fault: fault, since: now, isUncertain: isLate))
                case let other:
                    handler.bench.record.count(.events)
                    do throws(UserfaultError) {
                        try take(other, of: memory, &machine, uffd, &handler.spare)
                    } catch {
                        // No child that is still in the batch is shown zeros.
                        _ = letGo(&handler.batch)
                        throw error
                    }
                }
            }
            return count
        }
    }
}
