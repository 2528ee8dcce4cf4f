internal import Synchronization
internal import UserfaultFD

/// What one pager has to do for loaders: faults that were read, in the order in which they came, then jobs by their
/// priority.
///
/// A reader only puts faults in. Nothing takes memory from the heap under the lock that it needs: a fork may hold the
/// heap's locks.
@safe
final class WorkQueue: @unchecked Sendable {
    struct Item {
        var pending: PendingFault
        /// Which of the descriptors it is of.
        let memory: Int
    }

    @safe private struct State: ~Copyable {
        /// Mapped, and not taken from the heap: it grows while another thread may be inside `fork`.
        var memory: Mapping
        var first = 0
        var count = 0
        /// Since there was room for it, a fault was left out.
        var lacksRoom = false

        var capacity: Int { memory.count / MemoryLayout<Item>.stride }

        var items: UnsafeMutablePointer<Item> {
            unsafe memory.unsafeBaseAddress.assumingMemoryBound(to: Item.self)
        }

        /// - Returns: `false` if there is no room.
        mutating func reserve(_ maximum: Int) -> Bool {
            guard count < maximum else { return false }
            guard count == capacity else { return true }
            guard let larger = try? Mapping(anonymous: 2 * memory.count) else { return false }
            let places = unsafe larger.unsafeBaseAddress.assumingMemoryBound(to: Item.self)
            for position in 0..<count {
                unsafe (places + position).initialize(to: items[(first + position) % capacity])
            }
            memory = larger
            first = 0
            return true
        }
    }

    private struct Jobs {
        /// By priority, then by age.
        var list: [Job] = []
        var nextID = 1
    }

    private let state: Mutex<State>
    private let jobs = Mutex(Jobs())
    private let faultCount = Atomic<Int>(0)
    /// Faults were left out, and there is room for them now.
    private let hasRoomAgain = Atomic<Bool>(false)
    private let jobCount = Atomic<Int>(0)
    /// What loaders wait for.
    private let signals: SharedFutex
    private let isClosed = Atomic<Bool>(false)
    /// No thread takes a piece of a job.
    private let isHeld = Atomic<Bool>(false)
    /// The most faults that wait.
    private let capacity: Int
    /// Loaders that work for this pager, and the most that may.
    private let loaders = Atomic<Int>(0)
    private let loaderLimit: Int
    /// What is outstanding at a source that answers later.
    let window: RequestWindow?

    init(
        capacity: Int, loaderLimit: Int, window: RequestWindow? = nil, signals: SharedFutex
    ) throws(UserfaultError) {
        let memory = try Mapping(anonymous: PageSize.base.bytes)
        state = Mutex(State(memory: memory))
        self.capacity = capacity
        self.loaderLimit = loaderLimit
        self.window = window
        self.signals = signals
    }

    // MARK: Faults

    /// How many faults wait.
    var count: Int { faultCount.load(ordering: .acquiring) }

    /// The fault that was read before all others, or `nil` if none waits.
    var oldest: PendingFault? {
        guard count > 0 else { return nil }
        return state.withLock { state in
            var oldest: PendingFault?
            for position in 0..<state.count {
                let pending = unsafe state.items[(state.first + position) % state.capacity].pending
                if pending.since != 0, pending.since < oldest?.since ?? .max { oldest = pending }
            }
            return oldest
        }
    }

    /// Puts a fault in, for which a loader is to be woken.
    ///
    /// - Returns: `false` if there is no room.
    func put(_ item: Item) -> Bool {
        guard putSilently(item) else { return false }
        signals.signal(waking: 1)
        return true
    }

    /// As ``put(_:)``, and wakes nobody: see ``wakeLoaders(_:)``.
    func putSilently(_ item: Item) -> Bool {
        state.withLock { state -> Bool in
            guard state.reserve(capacity) else {
                state.lacksRoom = true
                return false
            }
            let index = (state.first + state.count) % state.capacity
            unsafe (state.items + index).initialize(to: item)
            state.count += 1
            faultCount.store(state.count, ordering: .releasing)
            return true
        }
    }

    /// Wakes as many loaders as there are faults for, or all.
    func wakeLoaders(_ count: Int = .max) { signals.signal(waking: Int32(truncatingIfNeeded: min(count, 1 << 30))) }

    /// Takes the first fault that is due.
    ///
    /// - Parameter next: Lowered to when the next one is, if none is now.
    func take(at now: UInt64, next: inout UInt64) -> Item? {
        guard !isClosed.load(ordering: .acquiring) else { return nil }
        return take(where: { $0.pending.due <= now }, elseDue: &next)
    }

    /// Takes the first fault that is asked for.
    func take(where isWanted: (Item) -> Bool) -> Item? {
        guard count > 0 else { return nil }
        var next: UInt64 = 0
        return take(where: isWanted, elseDue: &next)
    }

    /// Takes any fault.
    func takeAny() -> Item? {
        var next: UInt64 = 0
        return take(where: { _ in true }, elseDue: &next)
    }

    private func take(where isWanted: (Item) -> Bool, elseDue next: inout UInt64) -> Item? {
        let limit = capacity
        return state.withLock { state in
            let capacity = state.capacity
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
                faultCount.store(state.count, ordering: .releasing)
                if state.lacksRoom, state.count <= limit / 2 {
                    state.lacksRoom = false
                    hasRoomAgain.store(true, ordering: .releasing)
                }
                return item
            }
            return nil
        }
    }

    /// Whether there is room again since a fault was left out; said once.
    func regainsRoom() -> Bool {
        hasRoomAgain.load(ordering: .relaxed) && hasRoomAgain.exchange(false, ordering: .acquiringAndReleasing)
    }

    // MARK: Loaders

    /// Has one more loader work for this pager, as long as there are not too many: others must find one that is free.
    func enter() -> Bool {
        guard loaders.add(1, ordering: .relaxed).newValue > loaderLimit else { return true }
        loaders.subtract(1, ordering: .relaxed)
        return false
    }

    /// A loader works for others.
    func leave() { loaders.subtract(1, ordering: .relaxed) }

    // MARK: Jobs

    /// Puts a job in, unless the queue is closed.
    func submit(_ kind: Job.Kind, limit: RateLimit? = nil) -> Job {
        let job = jobs.withLock { jobs in
            let job = Job(id: jobs.nextID, kind, limit: limit)
            jobs.nextID += 1
            // Whoever closes it afterwards ends what is in the list.
            guard !isClosed.load(ordering: .sequentiallyConsistent) else {
                job.end()
                return job
            }
            let index = jobs.list.firstIndex { $0.priority.rawValue > job.priority.rawValue } ?? jobs.list.endIndex
            jobs.list.insert(job, at: index)
            jobCount.store(jobs.list.count, ordering: .releasing)
            return job
        }
        signals.signal()
        return job
    }

    /// Whether there may be jobs.
    var hasJobs: Bool { jobCount.load(ordering: .acquiring) > 0 }

    /// The job of a number, while it is not over.
    func job(_ id: Int) -> Job? { jobs.withLock { $0.list.first { $0.id == id } } }

    /// Takes part in the first job of a priority that has a piece.
    func join(_ priority: Job.Priority, at now: UInt64, next: inout UInt64) -> Job? {
        let (job, over) = jobs.withLock { jobs -> (Job?, [Job]) in
            let over = jobs.list.filter(\.isOver)
            if !over.isEmpty { jobs.list.removeAll(where: \.isOver) }
            jobCount.store(jobs.list.count, ordering: .releasing)
            guard !isHeld.load(ordering: .acquiring) else { return (nil, over) }
            return (jobs.list.first { $0.priority == priority && $0.join(at: now, next: &next) }, over)
        }
        // What they hold is let go outside the lock.
        _ = consume over
        return job
    }

    /// Keeps jobs from going on, or lets them.
    func holdJobs(_ areHeld: Bool) {
        isHeld.store(areHeld, ordering: .releasing)
        signals.signal()
    }

    /// Ends every job, done or not.
    func endJobs() {
        let all = jobs.withLock { jobs in
            defer {
                jobs.list = []
                jobCount.store(0, ordering: .releasing)
            }
            return jobs.list
        }
        for job in all { job.end() }
        signals.signal()
    }

    /// Whether a loader would find something to wait for.
    var hasWork: Bool {
        !isClosed.load(ordering: .acquiring) && (count > 0 || jobs.withLock { !$0.list.allSatisfy(\.isOver) })
    }

    /// Gives nothing out any more.
    func close() {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        endJobs()
    }
}
