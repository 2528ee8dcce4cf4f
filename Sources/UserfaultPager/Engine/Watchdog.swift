internal import Synchronization
internal import UserfaultFD

// What the clock does for one pager: time limits, what is stuck, what nobody reads, the end of a process.

/// What the clock remembers of one pager from one look to the next.
struct Watchdog {
    /// Between two looks, in nanoseconds.
    let interval: UInt64
    var due: UInt64 = 0
    /// When it looked for what is stuck.
    var looked = MonotonicInstant.now.nanoseconds
    var unreadFaults = 0
    var served: UInt64 = 0
    /// How often in a row nobody took faults.
    var unreadLooks = 0
    /// What the reader was doing.
    var readerWork: UInt64 = 0

    init(_ configuration: PagerConfiguration) {
        let limit = configuration.sourceTimeout.map { $0.wholeNanoseconds / 2 } ?? .max
        interval = max(1_000_000, min(configuration.watchdogInterval.wholeNanoseconds, limit))
    }

    /// Has it look again after its interval; never if that ends after the clock does.
    mutating func setDue() {
        let (moment, isBeyond) = MonotonicInstant.now.nanoseconds.addingReportingOverflow(interval)
        due = isBeyond ? .max : moment
    }
}

extension PagerCore where Source: ~Copyable {
    func look(with tools: inout ClockTools) -> UInt64 {
        guard isWatched.load(ordering: .acquiring), !isStopping.load(ordering: .relaxed), uses.enterThread() else {
            return .max
        }
        defer { leaveThread() }
        if memories[0].hasEnded, !ownerIsGone.load(ordering: .relaxed) { noteEnd(of: memories[0]) }
        var watchdog = watchdog.withLock(\.self)
        guard MonotonicInstant.now.nanoseconds >= watchdog.due else { return watchdog.due }
        probeEnds()
        expireLoads()
        reportStuck(&watchdog)
        wakeLeftOut()
        lookForUnread(&watchdog, with: &tools)
        lookForSelfDeadlocks()
        retireRegions()
        endOldDeadlock()
        watchdog.setDue()
        self.watchdog.withLock { [watchdog] in $0 = watchdog }
        return watchdog.due
    }

    /// Looks for memory that is gone: a process that executes another program has ended for us, and lives on.
    private func probeEnds() {
        if !owner.isCurrent {
            for memory in memories where !memory.hasEnded && memory.probeEnd() { noteEnd(of: memory) }
        }
        for child in children where child.beginUse() {
            // In the order, as all calls for children.
            if child.sharingOrder({ _, _ in child.probeEnd() }) { noteEnd(of: child) }
            child.endUse()
        }
    }

    // MARK: Waits

    /// Reports what is outstanding for too long: once, and again whenever its time has doubled.
    ///
    /// Of the faults that wait for a worker, the oldest.
    private func reportStuck(_ watchdog: inout Watchdog) {
        let now = MonotonicInstant.now.nanoseconds
        let limit = max(1, configuration.stuckAfter.wholeNanoseconds)
        let looked = watchdog.looked
        watchdog.looked = now
        func report(_ address: UInt, since: UInt64) -> Bool {
            guard since != 0, doublings(since, now, limit) > doublings(since, looked, limit) else { return false }
            note(.stuck(address: address, nanoseconds: now - since))
            return true
        }
        let keepsOthers = registry.withLock { registry in
            registry.records.reduce(false) { keepsOthers, record in
                record.isWorking && report(record.workAddress, since: record.workSince) && record.readsMessages
                    || keepsOthers
            }
        }
        if let oldest = queue.oldest { _ = report(oldest.fault.address, since: oldest.since) }
        if keepsOthers { giveBackUnserved() }
    }

    /// How often a wait has reached a limit that doubles each time.
    private func doublings(_ since: UInt64, _ now: UInt64, _ limit: UInt64) -> Int {
        now > since ? UInt64.bitWidth - ((now - since) / limit).leadingZeroBitCount : 0
    }

    /// Gives the kernel back what a handler has read and cannot come to, for others to take.
    ///
    /// Which faults those are only the handler knows: every thread that waits looks again, and faults anew. Not for loaders,
    /// which keep none, nor for a reader of a runtime, in whose place no other reads.
    private func giveBackUnserved() {
        for memory in memories where !memory.hasEnded {
            memory.sharingOrder { uffd, machine in
                for index in 0..<machine.spans.count { try? uffd.wake(machine.spans[index].range) }
            }
        }
    }

    // MARK: Time limits

    /// Fails pages that the source was asked for and has not brought in time.
    private func expireLoads() {
        guard let timeout = configuration.sourceTimeout?.wholeNanoseconds else { return }
        let now = MonotonicInstant.now.nanoseconds
        guard now > timeout else { return }
        let record = borrowRecord()
        defer { giveBack(record) }
        while let load = takeLoad(begunBefore: now - timeout, for: record) {
            expire(load.claim, of: load.memory, by: record)
            record.end()
            load.memory.endUse()
            if load.keepsOthers { giveBackUnserved() }
        }
        for request in requests.made(before: now - timeout) { expire(request, by: record) }
    }

    /// Takes a load away from its thread, in the exclusion in which nobody frees regions or records.
    private func takeLoad(begunBefore moment: UInt64, for taker: ThreadRecord) -> ThreadRecord.Load? {
        registry.withLock { registry in
            for record in registry.records {
                if let load = record.takeLoad(begunBefore: moment, for: taker) { return load }
            }
            return nil
        }
    }

    private func expire(_ claim: Claim, of memory: ServedMemory, by record: ThreadRecord) {
        let first = claim.prefix(pages: 1)
        if claim.pages > 1 { giveBack(claim.dropFirst(first.range.count), of: memory) }
        guard claim.isAwaited else { return giveBack(first, of: memory) }
        note(.timedOut(address: first.range.start))
        let pending = PendingFault(fault: PageFault(address: first.range.start, flags: []), since: 0)
        let served = give(up: first, claim.region.failure.ending, for: pending, of: memory, by: record)
        // Not now: the thread looks again, and its fault comes anew.
        if case .later = served { memory.wake(first.range) }
    }

    // MARK: Self-deadlocks

    /// Whether a thread of the pager waits for the pager: reported, and left for the watchdog to end.
    @inline(never)
    func isSelfDeadlock(_ fault: PageFault, of memory: ServedMemory) -> Bool {
        guard isOfOwnThread(fault, memory.number) else { return false }
        deadlock.withLock { $0 = $0 ?? (fault.address, MonotonicInstant.now.nanoseconds) }
        note(.selfDeadlock(thread: Int32(bitPattern: fault.threadID), address: fault.address))
        return true
    }

    private func isOfOwnThread(_ fault: PageFault, _ number: Int) -> Bool {
        // A thread of a child may have any number: it may be in a namespace of its own.
        owner.isCurrent && number < memories.count && isOwnThread(Int32(bitPattern: fault.threadID))
    }

    /// Whether a thread serves this pager: one that works for others meanwhile is waited for by nobody.
    func isOwnThread(_ thread: Int32) -> Bool {
        // Without the feature every fault has the thread 0.
        guard thread != 0 else { return false }
        return ownThreads.contains(thread) || reader?.isThread(thread) ?? false
    }

    /// Ends a wait for itself of which nobody is told, or that was told to somebody who does not come back.
    private func endOldDeadlock() {
        guard let found = deadlock.withLock(\.self) else { return }
        let now = MonotonicInstant.now.nanoseconds
        guard configuration.report == nil || now - found.since > 1_000_000_000 else { return }
        endSelfDeadlock(at: found.address)
    }

    /// Looks for workers that wait for what is behind them in the queue.
    private func lookForSelfDeadlocks() {
        while let item = queue.take(where: { isOfOwnThread($0.pending.fault, $0.memory) }) {
            let memory = memory(item.memory)
            _ = isSelfDeadlock(item.pending.fault, of: memory)
            memory.endUse()
        }
    }

    /// Gives a thread of the pager that waits for itself the `SIGBUS` that ends it.
    func endSelfDeadlock(at address: UInt) {
        guard uses.enterThread() else { return }
        defer { leaveThread() }
        deadlock.withLock { $0 = nil }
        // The signal was sent already, and the program may have got over it.
        guard !isInThread else { return }
        for memory in memories {
            let outcome = memory.sharingOrder { (uffd, machine) -> FillOutcome in
                guard let span = machine.spans.find(address) else { return .noRange }
                let page = AddressRange.page(holding: address, size: span.region.pageSize)
                return FillOutcome.poisoning(
                    page, of: span.region, span.states?.advanced(by: span.page(at: address)), in: uffd)
            }
            if outcome == .done { return }
        }
        killOwner()
    }

    /// Looks for faults that nobody takes, because every thread that could waits for something.
    private func lookForUnread(_ watchdog: inout Watchdog, with tools: inout ClockTools) {
        let readerWork = reader?.work ?? 0
        let isHeldUp = readerWork != 0 && readerWork == watchdog.readerWork
        watchdog.readerWork = readerWork
        // Who waits for something does so in a source.
        guard isHeldUp || isWorking else {
            watchdog.unreadFaults = 0
            watchdog.unreadLooks = 0
            return
        }
        var unread = 0
        for memory in memories where !memory.hasEnded {
            unread += (try? memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status().pending }) ?? 0
        }
        let served = faultsServed
        defer {
            watchdog.unreadFaults = unread
            watchdog.served = served
        }
        guard unread > 0, watchdog.unreadFaults > 0, served == watchdog.served else {
            watchdog.unreadLooks = 0
            return
        }
        watchdog.unreadLooks += 1
        if watchdog.unreadLooks.nonzeroBitCount == 1 { note(.unread(unread)) }
        for memory in memories where !memory.hasEvents { takeOver(memory, with: &tools) }
    }

    private var isWorking: Bool { registry.withLock { $0.records.contains(where: \.isWorking) } }

    private var faultsServed: UInt64 {
        registry.withLock { registry in
            registry.records.reduce(0) { sum, record in
                sum &+ record.counted(.missing) &+ record.counted(.minor) &+ record.counted(.writeProtect)
            }
        }
    }

    /// Reads in place of handlers that all wait: one of them may wait for itself.
    func takeOver(_ memory: ServedMemory, with tools: inout ClockTools) {
        let read = try? memory.withDescriptor { (uffd) throws(UserfaultError) in
            // A handler may be faster, and the watchdog must not sleep then.
            let blocks = configuration.waiting == .block
            if blocks { try uffd.setNonBlocking(true) }
            defer { if blocks { try? uffd.setNonBlocking(false) } }
            return try uffd.read(into: &tools.batch)
        }
        guard let read, read > 0 else { return }
        while let fault = tools.batch.nextPageFault() {
            // The others' faults go back: their threads look again.
            if !isSelfDeadlock(fault, of: memory) { memory.wake(fault.page(size: .base)) }
        }
    }
}
