internal import Synchronization
internal import UserfaultFD

// How the service begins and ends. Runs on the threads that start and stop a pager.

extension PagerCore where Source: ~Copyable {
    /// Starts the service: the runtime's threads, if they are this pager's own, and handlers.
    ///
    /// All that threads need is allocated here: one that allocates while another is inside `fork` waits for it.
    func startThreads() throws(PagerError) {
        if ownsRuntime { try runtime.start() }
        if let reader, !servesInPlace {
            var handler = try asPagerError { () throws(UserfaultError) in try Handler(.poll, processors: 1) }
            rehearse(with: &handler)
            reader.warm(with: self)
        }
        if reports != nil { try runtime.needReporter() }
        if let reader { try beginReading(by: reader) } else { try startHandlers() }
        try asPagerError { () throws(UserfaultError) in try runtime.clock.watch(owner.watched) }
        watchdog.withLock { $0.setDue() }
        isWatched.store(true, ordering: .releasing)
        runtime.clock.wake()
    }

    private func beginReading(by reader: Reader) throws(PagerError) {
        guard uses.enterThread() else { throw .notRunning }
        reader.members.add(1, ordering: .relaxed)
        isRead.store(true, ordering: .sequentiallyConsistent)
        try asPagerError { () throws(UserfaultError) in
            for memory in memories { try reader.add(memory) }
            // Those of forks whose events came before.
            for child in children where !child.isVacant { try reader.add(child) }
        }
    }

    /// Has the reader not come back.
    ///
    /// Where it does not leave by the deadline, because a source holds it, the clock lets the pager go later.
    private func endReading(until deadline: Deadline) {
        guard let reader, isRead.exchange(false, ordering: .sequentiallyConsistent) else { return }
        for memory in memories { reader.remove(memory) }
        for child in children where child.beginUse() {
            reader.remove(child)
            child.endUse()
        }
        reader.members.subtract(1, ordering: .relaxed)
        let departure = reader.departure
        if reader.awaitPass(of: departure, until: deadline) {
            readerHasLeft()
        } else {
            runtime.clock.keep(self, until: departure, of: reader)
        }
    }

    func readerHasLeft() { leaveThread() }

    private func startHandlers() throws(PagerError) {
        // Threads that fault serve already.
        if isInThread { return }
        if configuration.waiting == .block {
            for memory in memories {
                let sentinel = try asPagerError { () throws(UserfaultError) in
                    SentinelBox(try Sentinel.make(for: memory, handlers: configuration.handlers), of: memory)
                }
                sentinels.withLock { $0.append(sentinel) }
            }
        }
        for memory in memories {
            for _ in 0..<configuration.handlers { try startHandler(of: memory) }
        }
    }

    private func startHandler(of memory: ServedMemory) throws(PagerError) {
        let record = makeRecord(readsMessages: true)
        let number = handlers.withLock { $0.count }
        let processors = configuration.processors
        let processor = processors.isEmpty ? nil : ProcessorSet(processors[number % processors.count])
        guard uses.enterThread() else { throw .notRunning }
        do throws(PagerError) {
            let thread = try asPagerError { () throws(UserfaultError) in
                let room = Handed(try Handler(configuration.waiting, processors: processorCount, record: record))
                return try NativeThread(
                    "uffd-handler-\(number)", stackSize: Runtime.stackBytes, processors: processor
                ) { [self] in
                    var handler = room.take()
                    enter(record)
                    do throws(UserfaultError) {
                        try handle(memory, with: &handler)
                    } catch {
                        // Nobody may be left behind waiting, nor read zeros.
                        if !isStopping.load(ordering: .sequentiallyConsistent) { killOwner() }
                    }
                    leave(record)
                    retire(record)
                    leaveThread()
                }
            }
            handlers.withLock { $0.append(thread) }
        } catch {
            retire(record)
            leaveThread()
            throw error
        }
    }

    /// The calling thread needs the descriptors no more.
    func leaveThread() {
        if uses.leave() { close() }
        uses.noteThreadEnd()
    }

    // MARK: Ending

    /// Ends the service: what was not loaded is poisoned, and threads end.
    ///
    /// Calls of the source that are under way at the deadline are left to themselves: their answers change nothing.
    func shutDown(until deadline: Deadline) {
        isFinishing.store(true, ordering: .sequentiallyConsistent)
        queue.endJobs()
        isEnding.store(true, ordering: .sequentiallyConsistent)
        poisonTheUntouched(until: deadline)
        seal(until: deadline)
        end(until: deadline)
    }

    /// Ends the threads, and closes the descriptors.
    private func end(until deadline: Deadline) {
        cancelRequests()
        requestStop()
        endReading(until: deadline)
        let boxes = sentinels.withLock(\.self)
        var callers: [NativeThread] = []
        for box in boxes {
            if let caller = try? NativeThread("uffd-stop", { box.sentinel.touchAll() }) { callers.append(caller) }
        }
        stopServingInThreads(until: deadline)
        let haveLeft = uses.awaitThreads(until: deadline)
        let threads = handlers.withLock { handlers in
            defer { handlers = [] }
            return handlers
        }
        for thread in threads {
            if haveLeft { thread.join() } else { thread.detach() }
        }
        for box in boxes { box.sentinel.end(in: box.memory) }
        for caller in callers { caller.join() }
        awaitReports(until: deadline)
        if isWatched.exchange(false, ordering: .acquiringAndReleasing) { runtime.clock.unwatch(owner.watched) }
        runtime.remove(self, hasReports: reports.map { !$0.isDelivered } ?? false, until: deadline)
        if uses.leave() { close() }
    }

    /// Ends a pager that could not go on in the place of another: what that has left, events included, another may have.
    func abandon(until deadline: Deadline) {
        isFinishing.store(true, ordering: .sequentiallyConsistent)
        isEnding.store(true, ordering: .sequentiallyConsistent)
        end(until: deadline)
    }

    func requestStop() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        stopEvent?.signal()
        queue.close()
    }

    func noteOwnerEnd() {
        // What was ready may have been another's descriptor of the same number.
        guard (try? poll(owner.watched, until: Deadline(after: .zero))) ?? 0 != 0 else { return }
        for memory in memories { noteEnd(of: memory) }
    }

    /// Whether nobody is left to be served.
    var allHaveEnded: Bool {
        guard memories.allSatisfy(\.hasEnded) else { return false }
        guard !children.isEmpty else { return true }
        while true {
            // A process may end as soon as its fork is read. Its child is served at the end of the exclusion in which that
            // was done, which counting the changes waits for.
            let before = changeCount
            guard children.allSatisfy({ $0.isVacant || $0.hasEnded }) else { return false }
            // Otherwise a child may have come to a place that was passed, of a parent that has ended since.
            if changeCount == before { return true }
        }
    }

    /// The process whose memory it is has ended.
    ///
    /// If that was the last one, nobody is left to be served.
    func noteEnd(of memory: ServedMemory) {
        memory.noteEnd()
        guard allHaveEnded else { return }
        guard !ownerIsGone.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Who hears of it finds the calls ended.
        requestStop()
        note(.ownerGone)
    }
}
