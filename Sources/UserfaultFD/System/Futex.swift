internal import CUserfaultFD
internal import Synchronization

/// A word that threads of this process wait for.
///
/// The word counts changes: a waiter reads it, looks whether what it waits for is so, and sleeps only if the word is
/// still the same. A change between the look and the sleep is therefore never missed.
@safe
package struct FutexWord: ~Copyable, @unchecked Sendable {
    // An allocation of its own: the kernel knows the word by its address, which must not change.
    private let word: UnsafeMutablePointer<Atomic<UInt32>>

    package init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: Atomic(0))
    }

    deinit {
        unsafe word.deinitialize(count: 1)
        unsafe word.deallocate()
    }

    /// The number of changes, to be given to ``wait(while:until:)``.
    ///
    /// Acquires: what was stored before the change that is seen is visible.
    package var changes: UInt32 { unsafe word.pointee.load(ordering: .acquiring) }

    /// Counts a change and wakes up to `count` threads.
    ///
    /// Releases: what was stored before is visible to threads that see the change.
    package func signal(waking count: Int32 = .max) {
        unsafe word.pointee.add(1, ordering: .acquiringAndReleasing)
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) { _ = unsafe cuffd_futex_wake($0, count) }
    }

    /// Sleeps while the number of changes is the one given; may also return early, for no reason.
    package func wait(while changes: UInt32, until deadline: Deadline) {
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) {
            _ = unsafe cuffd_futex_wait($0, changes, deadline.remainingNanoseconds)
        }
    }
}

/// Sleeps for a duration, as a thread of its own may; never to synchronize.
///
/// Takes no memory from the heap: a thread that forks may hold it until the caller goes on.
package func pauseThread(for duration: Duration) { pauseThread(until: Deadline(after: duration)) }

/// Sleeps until a time, as ``pauseThread(for:)`` does.
package func pauseThread(until deadline: Deadline) {
    // Nobody knows the word, so nobody wakes.
    var word: UInt32 = 0
    while !deadline.hasPassed { _ = unsafe cuffd_futex_wait(&word, 0, deadline.remainingNanoseconds) }
}
