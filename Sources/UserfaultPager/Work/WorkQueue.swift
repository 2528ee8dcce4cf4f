internal import Synchronization
internal import UserfaultFD

/// What there is to do for threads that load: faults that were read, in the order in which they came, then jobs by
/// their priority.
///
/// The reader only puts faults in. Nothing takes memory under the lock that it needs: a fork may hold the heap's locks.
/// A thread with nothing to do sleeps.
@safe
final class WorkQueue: @unchecked Sendable {
    struct Item {
        var pending: PendingFault
        /// Which of the descriptors it is of.
        let memory: Int
    }

    enum Work {
        case fault(Item)
        /// To be left when the piece is done.
        case job(Job)
    }

    /// Who asks for work.
    enum Role {
        /// Stays until the queue is closed.
        case worker
        /// Goes when there is nothing left.
        case visitor
        /// Goes when a job is over.
        case caller(Job)
    }

    @safe private struct State: ~Copyable {
        var items: UnsafeMutableBufferPointer<Item>
        var first = 0
        var count = 0
    }

    private struct Jobs {
        /// By priority, then by age.
        var list: [Job] = []
        var nextID = 1
        /// How many threads have a piece of a job.
        var running = 0
    }

    private let state: Mutex<State>
    private let jobs = Mutex(Jobs())
    /// Counts what is put in: what sleeping threads look at.
    private let signals = FutexWord()
    private let isClosed = Atomic<Bool>(false)
    /// No thread takes a piece of a job.
    private let isHeld = Atomic<Bool>(false)
    /// The most threads that have pieces of jobs at once: faults must find one that is free.
    private let jobLimit: Int

    init(capacity: Int, jobLimit: Int) {
        let items = UnsafeMutableBufferPointer<Item>.allocate(capacity: capacity)
        state = unsafe Mutex(State(items: items))
        self.jobLimit = jobLimit
    }

    deinit {
        state.withLock { unsafe $0.items.deallocate() }
    }

    // MARK: Faults

    /// How many faults wait.
    var count: Int { state.withLock { $0.count } }

    /// The fault that was read before all others, or `nil` if none waits.
    var oldest: PendingFault? {
        state.withLock { state in
            var oldest: PendingFault?
            for position in 0..<state.count {
                let pending = unsafe state.items[(state.first + position) % state.items.count].pending
                if pending.since != 0, pending.since < oldest?.since ?? .max { oldest = pending }
            }
            return oldest
        }
    }

    /// - Returns: `false` if there is no room.
    func put(_ item: Item) -> Bool {
        let hadRoom = state.withLock { state -> Bool in
            guard unsafe state.count < state.items.count else { return false }
            let index = unsafe (state.first + state.count) % state.items.count
            unsafe state.items.initializeElement(at: index, to: item)
            state.count += 1
            return true
        }
        signals.signal(waking: 1)
        return hadRoom
    }

    /// Takes the first fault of a thread of a set.
    func take(ofThreadIn threads: ThreadSet) -> Item? {
        var next: UInt64 = 0
        return take(where: { threads.contains(Int32(bitPattern: $0.pending.fault.threadID)) }, elseDue: &next)
    }

    /// Takes any fault.
    func takeAny() -> Item? {
        var next: UInt64 = 0
        return take(where: { _ in true }, elseDue: &next)
    }

    private func take(where isWanted: (Item) -> Bool, elseDue next: inout UInt64) -> Item? {
        state.withLock { state in
            let capacity = unsafe state.items.count
            for position in 0..<state.count {
                let item = unsafe state.items[(state.first + position) % capacity]
                guard isWanted(item) else {
                    next = min(next, item.pending.due)
                    continue
                }
                // Those in front of it move up; it is the first one nearly always.
                for earlier in stride(from: position, to: 0, by: -1) {
                    unsafe state.items[(state.first + earlier) % capacity] =
                        state.items[(state.first + earlier - 1) % capacity]
                }
                state.first = (state.first + 1) % capacity
                state.count -= 1
                return item
            }
            return nil
        }
    }

    // MARK: Jobs

    /// Puts a job in, unless the queue is closed.
    func submit(_ kind: Job.Kind) -> Job {
        let job = jobs.withLock { jobs in
            let job = Job(id: jobs.nextID, kind)
            jobs.nextID += 1
            let index = jobs.list.firstIndex { $0.priority.rawValue > job.priority.rawValue } ?? jobs.list.endIndex
            jobs.list.insert(job, at: index)
            return job
        }
        if isClosed.load(ordering: .sequentiallyConsistent) { job.end() }
        signals.signal()
        return job
    }

    /// The job of a number, while it is not over.
    func job(_ id: Int) -> Job? { jobs.withLock { $0.list.first { $0.id == id } } }

    private func joinJob(at now: UInt64, next: inout UInt64) -> Job? {
        let (job, over) = jobs.withLock { jobs -> (Job?, [Job]) in
            let over = jobs.list.filter(\.isOver)
            if !over.isEmpty { jobs.list.removeAll(where: \.isOver) }
            guard jobs.running < jobLimit, !isHeld.load(ordering: .acquiring) else { return (nil, over) }
            let job = jobs.list.first { $0.join(at: now, next: &next) }
            if job != nil { jobs.running += 1 }
            return (job, over)
        }
        // What they hold is let go outside the lock.
        _ = consume over
        return job
    }

    /// Says that a piece is done, and that there may be more to do.
    func leave(_ job: Job) {
        jobs.withLock { $0.running -= 1 }
        signals.signal()
    }

    /// Keeps jobs from going on, or lets them.
    func holdJobs(_ areHeld: Bool) {
        isHeld.store(areHeld, ordering: .releasing)
        signals.signal()
    }

    /// Says that a job may go on.
    func wakeJobs() { signals.signal() }

    /// Ends every job, done or not.
    func endJobs() {
        let all = jobs.withLock { jobs in
            defer { jobs.list = [] }
            return jobs.list
        }
        for job in all { job.end() }
        signals.signal()
    }

    // MARK: Taking

    /// Whether a visitor would find something to wait for.
    var hasWork: Bool { count > 0 || jobs.withLock { !$0.list.allSatisfy(\.isOver) } }

    /// Takes the most urgent work that is due; sleeps while there is none.
    ///
    /// - Returns: `nil` once the queue is closed, and if there is no work that this thread stays for.
    func take(as role: Role) -> Work? {
        while !isClosed.load(ordering: .acquiring) {
            let seen = signals.changes
            let now = MonotonicInstant.now.nanoseconds
            var next = UInt64.max
            if let item = take(where: { $0.pending.due <= now }, elseDue: &next) { return .fault(item) }
            if case .caller(let job) = role, job.isOver { return nil }
            if let job = joinJob(at: now, next: &next) { return .job(job) }
            if case .visitor = role, !hasWork { return nil }
            signals.wait(while: seen, until: Deadline(at: MonotonicInstant(nanoseconds: next)))
        }
        return nil
    }

    /// Wakes every thread, for good.
    func close() {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        endJobs()
    }
}
