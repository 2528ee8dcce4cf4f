internal import CUserfaultFD
internal import Synchronization
internal import UserfaultFD

/// What the watchdog remembers from one look to the next.
struct Watchdog: ~Copyable {
    var bench: Workbench
    var batch = EventBatch(capacity: 64)
    /// The owner's pidfd, until it has told its end.
    var ownerDescriptor: CInt
    var unreadFaults = 0
    var servedFaults: UInt64 = 0
}

extension PagerCore where Source: ~Copyable {
    /// What the watchdog's thread does: looks after the others, and tells the user.
    func watch(_ record: ThreadRecord) throws(UserfaultError) {
        var watchdog = Watchdog(bench: try Workbench(record), ownerDescriptor: owner.watched)
        noteStarted()
        let limit = configuration.sourceTimeout.map { $0.nanoseconds / 2 } ?? .max
        let interval = max(1_000_000, min(configuration.watchdogInterval.nanoseconds, limit))
        while !isStopping.load(ordering: .relaxed) {
            var ready = InlineArray<2, CShort>(repeating: 0)
            var span = ready.mutableSpan
            _ = unsafe span.withUnsafeMutableBufferPointer { ready in
                unsafe cuffd_poll2(
                    stopEvent.rawValue, watchdog.ownerDescriptor, CUFFD_POLLIN, CInt(clamping: interval / 1_000_000),
                    ready.baseAddress)
            }
            if ready[1] != 0 {
                watchdog.ownerDescriptor = -1
                for memory in memories { noteEnd(of: memory) }
            }
            probeEnds()
            expireLoads(with: watchdog.bench)
            reportStuck()
            lookForUnread(&watchdog)
            retireRegions()
            deliverReports()
        }
        deliverReports()
    }

    /// Looks for memory that is gone: a process that executes another program has ended for us, and lives on.
    private func probeEnds() {
        if !owner.isCurrent {
            for memory in memories where !memory.hasEnded && memory.probeEnd() { noteEnd(of: memory) }
        }
        for child in children where child.beginUse() {
            if child.probeEnd() { noteEnd(of: child) }
            child.endUse()
        }
    }

    private func reportStuck() {
        let now = cuffd_monotonic_nanoseconds()
        let limit = configuration.stuckAfter.nanoseconds
        registry.withLock { registry in
            for record in registry.records where record.isWorking {
                let since = record.workSince
                if since != 0, now > since, now - since > limit {
                    note(.stuck(address: record.workAddress, nanoseconds: now - since))
                }
            }
        }
    }

    // MARK: Time limits

    /// Fails pages that their source has not brought in time: those that it was asked for, and those that wait behind.
    private func expireLoads(with bench: borrowing Workbench) {
        guard let timeout = configuration.sourceTimeout?.nanoseconds else { return }
        let now = cuffd_monotonic_nanoseconds()
        guard now > timeout else { return }
        for record in registry.withLock(\.records) {
            guard let (claim, memory) = record.takeLoad(begunBefore: now - timeout) else { continue }
            expire(claim, of: memory, with: bench)
        }
        while let item = queue.take(readBefore: now - timeout) {
            let memory = memory(item.memory)
            let order = memory.sharingOrder { _, machine in
                machine.begin(item.pending.fault, sourceFillsFile: source.fillsFile)
            }
            if case .fill(let claim) = order {
                expire(claim, of: memory, with: bench)
            } else if case .later = serveSpecially(order, item.pending, of: memory, with: bench) {
                memory.wake(item.pending.fault.page(size: .base))
            }
            memory.endUse()
        }
    }

    private func expire(_ claim: Claim, of memory: ServedMemory, with bench: borrowing Workbench) {
        let first = claim.prefix(pages: 1)
        if claim.pages > 1 { giveBack(claim.dropFirst(first.range.count), of: memory) }
        guard claim.isAwaited else { return giveBack(first, of: memory) }
        note(.timedOut(address: first.range.start))
        bench.record.count(.failures)
        let pending = PendingFault(fault: PageFault(address: first.range.start, flags: []), since: 0)
        let served = give(up: first, claim.region.failure.ending, for: pending, of: memory, with: bench)
        // Not now: the thread looks again, and its fault comes anew.
        if case .later = served { memory.wake(first.range) }
    }

    // MARK: Self-deadlocks

    /// Whether a thread of the pager waits for the pager: reported, and left for the watchdog to end.
    @inline(never)
    func isSelfDeadlock(_ fault: PageFault) -> Bool {
        // Without the feature every fault has the thread 0.
        guard owner.isCurrent, fault.threadID != 0, ownThreads.contains(Int32(bitPattern: fault.threadID)) else {
            return false
        }
        note(.selfDeadlock(thread: Int32(bitPattern: fault.threadID), address: fault.address))
        return true
    }

    /// Gives a thread of the pager that waits for itself the `SIGBUS` that ends it.
    func endSelfDeadlock(at address: UInt) {
        for memory in memories {
            let outcome = memory.sharingOrder { (uffd, machine) -> FillOutcome in
                guard let span = machine.spans.find(address) else { return .noRange }
                let page = AddressRange.page(holding: address, size: span.region.pageSize)
                return FillOutcome { () throws(UserfaultError) in try uffd.poison(page) }
            }
            if outcome == .done { return }
        }
        killOwner()
    }

    /// Looks for faults that nobody takes, because every thread that could waits for something.
    private func lookForUnread(_ watchdog: inout Watchdog) {
        var unread = 0
        for memory in memories where !memory.hasEnded {
            unread += (try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending }) ?? 0
        }
        let served = statistics.faults
        defer {
            watchdog.unreadFaults = unread
            watchdog.servedFaults = served
        }
        guard unread > 0, watchdog.unreadFaults > 0, served == watchdog.servedFaults else { return }
        note(.unread(unread))
        for memory in memories where !memory.hasEvents { takeOver(memory, &watchdog) }
    }

    /// Reads in place of handlers that all wait: one of them may wait for itself.
    func takeOver(_ memory: ServedMemory, _ watchdog: inout Watchdog) {
        let read = try? memory.withDescriptor { (uffd) throws(UserfaultError) in
            // A handler may be faster, and the watchdog must not sleep then.
            let blocks = configuration.waiting == .block
            if blocks { try uffd.setNonBlocking(true) }
            defer { if blocks { try? uffd.setNonBlocking(false) } }
            return try uffd.read(into: &watchdog.batch)
        }
        guard let read, read > 0 else { return }
        while let fault = watchdog.batch.nextPageFault() {
            // The others' faults go back: their threads look again.
            if !isSelfDeadlock(fault) { memory.wake(fault.page(size: .base)) }
        }
    }
}
