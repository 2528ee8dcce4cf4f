internal import Synchronization
internal import UserfaultFD

/// Who needs a pager's descriptors open: the pager itself until it is stopped, calls, and threads.
///
/// Whoever leaves last closes them. Nobody waits for that: a thread that hangs in a source keeps them open, and nothing
/// else. Any thread may ask.
struct Uses: ~Copyable, Sendable {
    private let count = Atomic<Int>(1)
    private let threads = Atomic<Int>(0)
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

    /// For who has entered already, on behalf of a thread.
    borrowing func enterAgain() { count.add(1, ordering: .relaxed) }

    borrowing func countThread(_ difference: Int) {
        threads.add(difference, ordering: .acquiringAndReleasing)
        changed.signal()
    }

    /// Waits until all threads have left.
    ///
    /// - Returns: `false` if they have not by the deadline.
    borrowing func awaitThreads(until deadline: Deadline) -> Bool {
        while true {
            let seen = changed.changes
            if threads.load(ordering: .acquiring) == 0 { return true }
            if deadline.hasPassed { return false }
            changed.wait(while: seen, until: deadline)
        }
    }
}
