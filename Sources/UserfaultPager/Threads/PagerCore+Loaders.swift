internal import Synchronization
internal import UserfaultFD

// Threads that come when there is work that nobody waits for, or that waits for another attempt, and go when it is done.
// Where workers run, they do it.

extension PagerCore where Source: ~Copyable {
    /// Sees to it that somebody takes what is in the queue.
    func startLoaders() throws(PagerError) {
        guard !workersRun.load(ordering: .acquiring) else { return }
        let wanted = source.isSlow ? 4 : 1
        let error = loaders.withLock { loaders -> PagerError? in
            if loaders.running == 0 {
                // Earlier ones are at their end.
                for thread in loaders.threads { thread.join() }
                loaders.threads = []
            }
            while loaders.running < wanted {
                do throws(PagerError) {
                    loaders.threads.append(try startLoader())
                    loaders.running += 1
                } catch {
                    // One is enough.
                    return loaders.running == 0 ? error : nil
                }
            }
            return nil
        }
        if let error { throw error }
    }

    private func startLoader() throws(PagerError) -> NativeThread {
        let record = makeRecord()
        do throws(PagerError) {
            let bench = Handed(try asPagerError { () throws(UserfaultError) in try Workbench(record) })
            return try launch("uffd-loader", record) { (core) throws(UserfaultError) in
                var bench = bench.take()
                repeat { core.work(with: &bench, as: .visitor) } while !core.loaderLeaves()
            }
        } catch {
            retire(record)
            throw error
        }
    }

    /// - Returns: `false` if there is work again, which nobody else may have come for.
    private func loaderLeaves() -> Bool {
        loaders.withLock { loaders in
            if queue.hasWork, !isStopping.load(ordering: .sequentiallyConsistent) { return false }
            loaders.running -= 1
            return true
        }
    }

    /// Lends the calling thread what a thread of the engine has.
    func withBench<Result>(
        _ body: (inout Workbench) throws(PagerError) -> Result
    ) throws(PagerError) -> Result {
        let record = makeRecord()
        enter(record)
        defer {
            leave(record)
            retire(record)
        }
        var bench = try asPagerError { () throws(UserfaultError) in try Workbench(record) }
        return try body(&bench)
    }

    /// Does what is in the queue.
    func work(with bench: inout Workbench, as role: WorkQueue.Role) {
        while let work = queue.take(as: role) {
            switch work {
            case .fault(let item):
                serve(item, with: &bench)
            case .job(let job):
                step(job, with: &bench)
                queue.leave(job)
            }
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
        guard (try? startLoaders()) == nil else { return true }
        memory.wake(pending.fault.page(size: .base))
        return true
    }

    private func serve(_ item: WorkQueue.Item, with bench: inout Workbench) {
        let memory = memory(item.memory)
        let isForJob = item.pending.job != 0
        switch serve(item.pending, of: memory, with: &bench, readsAhead: !source.isSlow && !isForJob) {
        case .done:
            finishQueued(item.pending.job, failed: false)
            if source.isSlow, !isForJob { readAhead(of: item.pending.fault, memory, with: &bench) }
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
        case .left, .gone:
            finishQueued(item.pending.job, failed: false)
        case .ended:
            noteEnd(of: memory)
            finishQueued(item.pending.job, failed: false)
        }
        memory.endUse()
    }
}

/// Threads that come and go with work.
struct Loaders {
    var running = 0
    /// Those that were started and not joined.
    var threads: [NativeThread] = []
}

/// Something that one thread makes and another takes.
final class Handed<Value: ~Copyable>: @unchecked Sendable {
    private var value: Value?

    init(_ value: consuming Value) {
        self.value = consume value
    }

    /// Once.
    func take() -> Value {
        guard let taken = value.take() else { fatalError("taken twice") }
        return taken
    }
}
