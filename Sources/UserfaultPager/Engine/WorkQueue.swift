internal import Synchronization
internal import UserfaultFD

/// Faults that were read and wait for a worker, in the order in which they came.
///
/// All room is allocated before; nothing of the user's runs under its lock. A worker with nothing to do sleeps.
@safe
final class WorkQueue: @unchecked Sendable {
    struct Item {
        var pending: PendingFault
        /// Which of the descriptors it is of.
        let memory: Int
    }

    @safe private struct State: ~Copyable {
        var items: UnsafeMutableBufferPointer<Item>
        var first = 0
        var count = 0
    }

    private let state: Mutex<State>
    /// Counts what is put in: what sleeping workers look at.
    private let signals = FutexWord()
    private let isClosed = Atomic<Bool>(false)

    init(capacity: Int) {
        let items = UnsafeMutableBufferPointer<Item>.allocate(capacity: capacity)
        state = unsafe Mutex(State(items: items))
    }

    deinit {
        state.withLock { unsafe $0.items.deallocate() }
    }

    /// How many faults wait.
    var count: Int { state.withLock { $0.count } }

    /// The fault that was read before all others, or `nil` where none waits.
    var oldest: PendingFault? {
        state.withLock { state in
            var oldest: PendingFault?
            for position in 0..<state.count {
                let pending = unsafe state.items[(state.first + position) % state.items.count].pending
                if pending.since < oldest?.since ?? .max { oldest = pending }
            }
            return oldest
        }
    }

    /// - Returns: `false` where there is no room.
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

    /// Takes the first fault that is due; sleeps where there is none.
    ///
    /// - Returns: `nil` once the queue is closed.
    func take() -> Item? {
        while !isClosed.load(ordering: .acquiring) {
            let seen = signals.changes
            let now = MonotonicInstant.now.nanoseconds
            var next = UInt64.max
            if let item = take(where: { $0.pending.due <= now }, elseDue: &next) { return item }
            signals.wait(while: seen, until: Deadline(at: MonotonicInstant(nanoseconds: next)))
        }
        return nil
    }

    /// Takes the first fault of a thread of a set.
    func take(ofThreadIn threads: ThreadSet) -> Item? {
        var next: UInt64 = 0
        return take(where: { threads.contains(Int32(bitPattern: $0.pending.fault.threadID)) }, elseDue: &next)
    }

    /// Takes a fault that was read before a moment.
    func take(readBefore moment: UInt64) -> Item? {
        var next: UInt64 = 0
        return take(where: { $0.pending.since < moment }, elseDue: &next)
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

    /// Wakes every worker, for good.
    func close() {
        isClosed.store(true, ordering: .releasing)
        signals.signal()
    }
}
