internal import Synchronization
internal import UserfaultFD

extension PagerCore where Source: ~Copyable {
    /// How many workers there are; none where handlers serve in place.
    var workers: Int {
        switch configuration.service {
        case .inline: 0
        case .workers(let count): count
        case .automatic: source.isSlow || !children.isEmpty ? 8 : 0
        }
    }

    /// Starts every thread.
    func startThreads() throws(PagerError) -> [NativeThread] {
        var threads: [NativeThread] = []
        do throws(PagerError) {
            try startServing(&threads)
            try start("uffd-watchdog", &threads) { (core, record) throws(UserfaultError) in
                try core.watch(record)
            }
        } catch {
            if !canPoison { try? populateAll() }
            stopThreads(threads)
            throw error
        }
        // A thread that allocates while another is inside `fork` waits for it; the reader must have done before.
        while starting.load(ordering: .acquiring) > 0 { pause(microseconds: 50) }
        return threads
    }

    private func populateAll() throws(PagerError) {
        for id in regionIDs {
            _ = try withRegion(id) { (region) throws(PagerError) -> Int in try finish(region, .populate) }
        }
    }

    private func startServing(_ threads: inout [NativeThread]) throws(PagerError) {
        guard workers > 0 else {
            for memory in memories {
                if configuration.waiting == .block {
                    let sentinel = try asPagerError { () throws(UserfaultError) in
                        SentinelBox(try Sentinel.make(for: memory, handlers: configuration.handlers), of: memory)
                    }
                    sentinels.withLock { $0.append(sentinel) }
                }
                for _ in 0..<configuration.handlers {
                    try start("uffd-handler", &threads) { (core, record) throws(UserfaultError) in
                        var handler = try Handler(record, core.configuration.waiting, processors: core.processorCount)
                        core.noteStarted()
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
        try start("uffd-reader", &threads) { (core, record) throws(UserfaultError) in
            var handler = try Handler(record, core.configuration.waiting, processors: core.processorCount)
            try core.rehearse(with: &handler)
            core.noteStarted()
            try core.readAll(with: &handler)
        }
        for _ in 0..<workers {
            try start("uffd-worker", &threads) { (core, record) throws(UserfaultError) in
                var bench = try Workbench(record)
                core.noteStarted()
                core.work(with: &bench)
            }
        }
    }

    private func start(
        _ name: String, _ threads: inout [NativeThread],
        _ body: @escaping @Sendable (PagerCore, ThreadRecord) throws(UserfaultError) -> Void
    ) throws(PagerError) {
        let record = makeRecord()
        starting.add(1, ordering: .relaxed)
        let processors = configuration.processors
        let processor = processors.isEmpty ? nil : processors[threads.count % processors.count]
        let title = "\(name)-\(threads.count)"
        let thread = try asPagerError { () throws(UserfaultError) in
            try NativeThread(title, processors: processor.map(ProcessorSet.init(_:))) { [self] in
                enter(record)
                defer { leave(record) }
                do throws(UserfaultError) {
                    try body(self, record)
                } catch {
                    // A thread that cannot serve must not leave waiters behind, nor let them read zeros.
                    killOwner()
                    starting.store(0, ordering: .releasing)
                }
            }
        }
        threads.append(thread)
    }

    /// Says that this thread has allocated what it needs.
    func noteStarted() { starting.subtract(1, ordering: .releasing) }

    /// Makes every thread end, and closes the descriptors: what was not loaded is poisoned.
    func stopThreads(_ threads: [NativeThread]) {
        beginFinishing()
        seal()
        requestStop()
        let boxes = sentinels.withLock(\.self)
        let callers = boxes.compactMap { box in
            try? NativeThread("uffd-stop") { box.sentinel.touchAll() }
        }
        for thread in threads { thread.join() }
        for box in boxes { box.sentinel.end(in: box.memory) }
        for caller in callers { caller.join() }
        close()
    }

    private func requestStop() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        stopEvent.signal()
        queue.close()
    }

    /// The process whose memory it is has ended.
    ///
    /// Where that was the last one, nobody is left to be served.
    func noteEnd(of memory: ServedMemory) {
        memory.noteEnd()
        guard memories.allSatisfy(\.hasEnded), children.allSatisfy({ $0.isVacant || $0.hasEnded }) else { return }
        guard !ownerIsGone.exchange(true, ordering: .acquiringAndReleasing) else { return }
        note(.ownerGone)
        requestStop()
    }
}
