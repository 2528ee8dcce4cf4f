internal import Synchronization
internal import UserfaultFD

// How a pager's threads begin and end. Runs on the threads that start and stop it.

extension PagerCore where Source: ~Copyable {
    /// How many workers there are; none where handlers serve in place.
    var workers: Int {
        isInThread ? 0 : configuration.workers(sourceIsSlow: source.isSlow, followsForks: !children.isEmpty)
    }

    /// Starts every thread.
    func startThreads() throws(PagerError) {
        do throws(PagerError) {
            try startServing()
            try start("uffd-watchdog") { (core, record) throws(UserfaultError) in
                try core.watch(record)
            }
            if configuration.report != nil {
                try start("uffd-reporter") { (core, record) throws(UserfaultError) in
                    core.noteStarted(record)
                    core.deliver()
                }
            }
        } catch {
            awaitStart()
            throw error
        }
        awaitStart()
        if let error = startFailure.withLock(\.self) { throw .kernel(error) }
    }

    /// A thread that allocates while another is inside `fork` waits for it; the reader must have done before.
    private func awaitStart() {
        while true {
            let seen = started.changes
            if starting.load(ordering: .acquiring) == 0 { return }
            started.wait(while: seen, until: .never)
        }
    }

    private func startServing() throws(PagerError) {
        // They serve already.
        if isInThread { return }
        guard workers > 0 else {
            for memory in memories {
                if configuration.waiting == .block {
                    let sentinel = try asPagerError { () throws(UserfaultError) in
                        SentinelBox(try Sentinel.make(for: memory, handlers: configuration.handlers), of: memory)
                    }
                    sentinels.withLock { $0.append(sentinel) }
                }
            }
            for memory in memories {
                for _ in 0..<configuration.handlers {
                    try start("uffd-handler") { (core, record) throws(UserfaultError) in
                        var handler = try Handler(record, core.configuration.waiting, processors: core.processorCount)
                        core.noteStarted(record)
                        try core.handle(memory, with: &handler)
                    }
                }
            }
            return
        }
        try asPagerError { () throws(UserfaultError) in
            for (number, memory) in memories.enumerated() {
                try pollSet.add(rawDescriptor: memory.rawDescriptor, token: UInt64(number))
            }
            try pollSet.add(stopEvent, token: Self.stopToken)
        }
        try start("uffd-reader") { (core, record) throws(UserfaultError) in
            var handler = try Handler(record, core.configuration.waiting, processors: core.processorCount)
            try core.rehearse(with: &handler)
            core.noteStarted(record)
            try core.readAll(with: &handler)
        }
        for _ in 0..<workers {
            try start("uffd-worker") { (core, record) throws(UserfaultError) in
                var bench = try Workbench(record)
                core.noteStarted(record)
                core.work(with: &bench, as: .worker)
            }
        }
        workersRun.store(true, ordering: .releasing)
    }

    /// Starts a thread that stays until the pager stops.
    private func start(
        _ name: String, _ body: @escaping @Sendable (PagerCore, ThreadRecord) throws(UserfaultError) -> Void
    ) throws(PagerError) {
        let record = makeRecord()
        let number = starting.add(1, ordering: .relaxed).oldValue
        let processors = configuration.processors
        let processor = processors.isEmpty ? nil : processors[number % processors.count]
        do throws(PagerError) {
            let thread = try launch("\(name)-\(number)", record, processor) { (core) throws(UserfaultError) in
                try body(core, record)
            }
            threads.withLock { $0.append(thread) }
        } catch {
            starting.subtract(1, ordering: .releasing)
            retire(record)
            throw error
        }
    }

    /// Starts a thread, whose end ``Uses/awaitThreads(until:)`` waits for.
    func launch(
        _ name: String, _ record: ThreadRecord, _ processor: Int? = nil,
        _ body: @escaping @Sendable (PagerCore) throws(UserfaultError) -> Void
    ) throws(PagerError) -> NativeThread {
        uses.enterAgain()
        uses.countThread(1)
        do throws(PagerError) {
            return try asPagerError { () throws(UserfaultError) in
                try NativeThread(
                    name, stackSize: Self.stackBytes, processors: processor.map(ProcessorSet.init(_:))
                ) { [self] in
                    enter(record)
                    do throws(UserfaultError) {
                        try body(self)
                    } catch {
                        end(record, error)
                    }
                    leave(record)
                    retire(record)
                    leaveThread()
                }
            }
        } catch {
            leaveThread()
            throw error
        }
    }

    private func leaveThread() {
        if uses.leave() { close() }
        uses.countThread(-1)
    }

    /// Joins threads that have come to their end.
    ///
    /// - Parameter haveLeft: Whether all have; those that have not are left to themselves.
    func joinThreads(haveLeft: Bool) {
        var ended = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        ended += loaders.withLock { loaders in
            defer { loaders.threads = [] }
            return loaders.threads
        }
        for thread in ended {
            if haveLeft { thread.join() } else { thread.detach() }
        }
    }

    /// Address space for a thread's stack, in bytes: a source runs on it.
    private static var stackBytes: Int { 1 << 20 }

    /// A thread cannot go on.
    private func end(_ record: ThreadRecord, _ error: UserfaultError) {
        if record.hasStarted {
            // One that served must not leave waiters behind, nor let them read zeros.
            if !isStopping.load(ordering: .sequentiallyConsistent) { killOwner() }
            return
        }
        startFailure.withLock { $0 = error }
        noteStarted(record)
    }

    /// Says that this thread has allocated what it needs.
    func noteStarted(_ record: ThreadRecord) {
        record.noteStarted()
        starting.subtract(1, ordering: .releasing)
        started.signal()
    }

    // MARK: Ending

    /// Ends the service: what was not loaded is poisoned, and threads end.
    ///
    /// Calls of the source that are under way at the deadline are left to themselves: their answers change nothing.
    func shutDown(until deadline: Deadline) {
        isFinishing.store(true, ordering: .sequentiallyConsistent)
        queue.endJobs()
        poisonTheUntouched(until: deadline)
        seal(until: deadline)
        cancelRequests()
        requestStop()
        let boxes = sentinels.withLock(\.self)
        var callers: [NativeThread] = []
        for box in boxes {
            if let caller = try? NativeThread("uffd-stop", { box.sentinel.touchAll() }) { callers.append(caller) }
        }
        stopServingInThreads(until: deadline)
        joinThreads(haveLeft: uses.awaitThreads(until: deadline))
        for box in boxes { box.sentinel.end(in: box.memory) }
        for caller in callers { caller.join() }
        if uses.leave() { close() }
    }

    func requestStop() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        stopEvent.signal()
        queue.close()
        reports.close()
    }

    /// The process whose memory it is has ended.
    ///
    /// If that was the last one, nobody is left to be served.
    func noteEnd(of memory: ServedMemory) {
        memory.noteEnd()
        guard memories.allSatisfy(\.hasEnded), children.allSatisfy({ $0.isVacant || $0.hasEnded }) else { return }
        guard !ownerIsGone.exchange(true, ordering: .acquiringAndReleasing) else { return }
        note(.ownerGone)
        requestStop()
    }
}

extension PagerConfiguration {
    /// How many workers there are; none where handlers serve in place.
    func workers(sourceIsSlow: Bool, followsForks: Bool) -> Int {
        switch service {
        case .inline, .inThread: 0
        case .workers(let count): count
        case .automatic: sourceIsSlow || followsForks ? 8 : 0
        }
    }
}
