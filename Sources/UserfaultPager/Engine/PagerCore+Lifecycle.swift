internal import CUserfaultFD
internal import Synchronization
internal import UserfaultFD

extension PagerCore where Source: ~Copyable {
    /// Starts every thread.
    func startThreads() throws(PagerError) -> [HandlerThread] {
        var threads: [HandlerThread] = []
        for memory in memories {
            for _ in 0..<configuration.handlers {
                let number = threads.count
                let record = makeRecord()
                threads.append(
                    try HandlerThread("uffd-handler-\(number)", processor: processor(number)) { [self] in
                        record.nameTask(cuffd_gettid())
                        run(memory, record)
                    })
            }
        }
        return threads
    }

    private func processor(_ number: Int) -> Int? {
        let processors = configuration.processors
        return processors.isEmpty ? nil : processors[number % processors.count]
    }

    private func run(_ memory: ServedMemory, _ record: ThreadRecord) {
        do throws(UserfaultError) {
            var handler = try Handler(record, configuration.waiting)
            try handle(memory, with: &handler)
        } catch {
            // A thread that cannot serve must not leave waiters behind, nor let them read zeros.
            killOwner()
        }
    }

    /// Makes every thread end, and waits for it.
    func stopThreads(_ threads: [HandlerThread]) {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        stopEvent.signal()
        for thread in threads { thread.join() }
    }

    /// The process whose memory it is has ended: nobody is left to be served.
    func ownerEnded() {
        guard !ownerIsGone.exchange(true, ordering: .acquiringAndReleasing) else { return }
        note(.ownerGone)
    }

    /// Leaves a report to the watchdog. Does not wait and takes no memory.
    func note(_ report: PagerReport) {
    }
}
