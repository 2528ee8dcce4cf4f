internal import Synchronization

// Written by one thread, read by any.

/// A histogram that one thread writes and others may read: buckets an eighth of a power of two wide.
struct LiveHistogram: ~Copyable {
    private let buckets = InlineArray<320, Atomic<UInt64>> { _ in Atomic(0) }
    private let largest = Atomic<UInt64>(0)

    /// Adds a value.
    ///
    /// Not for several threads at once.
    @inline(__always)
    borrowing func record(_ nanoseconds: UInt64) {
        buckets[LatencyHistogram.bucket(of: nanoseconds)].increase(by: 1)
        if nanoseconds > largest.load(ordering: .relaxed) { largest.store(nanoseconds, ordering: .relaxed) }
    }

    /// Adds what was recorded to a snapshot.
    borrowing func add(to snapshot: inout LatencyHistogram) {
        for index in buckets.indices { snapshot.buckets[index] += buckets[index].load(ordering: .relaxed) }
        snapshot.maximum = max(snapshot.maximum, largest.load(ordering: .relaxed))
    }
}

extension Atomic<UInt64> {
    /// Adds to a counter that only this thread writes.
    @inline(__always)
    borrowing func increase(by amount: UInt64) {
        store(load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }
}
