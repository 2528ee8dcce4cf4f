internal import Synchronization
internal import UserfaultFD

/// Who needs a pager's descriptors open: the pager itself until it is stopped, calls, and threads.
///
/// Whoever leaves last closes them. Nobody waits for that: a thread that hangs in a source keeps them open, and nothing
/// else. Any thread may ask.
struct Uses: ~Copyable, Sendable {
    private let count = Atomic<Int>(1)
    private let threads = Atomic<Int>(0)
    private let isAwaited = Atomic<Bool>(false)
    private let changed = FutexWord()

    /// - Returns: `false` once everybody has left.
    borrowing func enter() -> Bool {
        var before = count.load(ordering: .relaxed)
        while before > 0 {
            let result = count.compareExchange(
                expected: before, desired: before + 1, ordering: .acquiringAndReleasing)
            if result.exchanged { return true }
            before = result.original
        }
        return false
    }

    /// - Returns: Whether this was the last.
    borrowing func leave() -> Bool { count.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }

    /// For who has entered already.
    borrowing func enterAgain() { count.add(1, ordering: .relaxed) }

    /// Enters on behalf of a thread, whose end ``awaitThreads(until:)`` waits for.
    ///
    /// - Returns: `false` once everybody has left.
    borrowing func enterThread() -> Bool {
        guard enter() else { return false }
        threads.add(1, ordering: .sequentiallyConsistent)
        return true
    }

    /// Says that a thread that has entered has left.
    borrowing func noteThreadEnd() {
        threads.subtract(1, ordering: .sequentiallyConsistent)
        if isAwaited.load(ordering: .sequentiallyConsistent) { changed.signal() }
    }

    /// Waits until all threads have left.
    ///
    /// - Returns: `false` if they have not by the deadline.
    borrowing func awaitThreads(until deadline: Deadline) -> Bool {
        isAwaited.store(true, ordering: .sequentiallyConsistent)
        while true {
            let seen = changed.changes
            if threads.load(ordering: .sequentiallyConsistent) == 0 { return true }
            if deadline.hasPassed { return false }
            changed.wait(while: seen, until: deadline)
        }
    }
}
