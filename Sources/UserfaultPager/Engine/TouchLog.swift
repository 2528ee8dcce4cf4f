internal import Synchronization
internal import UserfaultFD

// Whoever serves notes, any thread reads.

/// Which pages were waited for, in order, in room that was mapped before.
struct TouchLog: ~Copyable, Sendable {
    private let memory: Mapping
    private let capacity: Int
    private let next = Atomic<Int>(0)

    init(capacity: Int) throws(UserfaultError) {
        self.capacity = capacity
        memory = try Mapping(anonymous: max(1, capacity) * 8, options: .noReserve)
    }

    /// Whether pages are recorded.
    @inline(__always)
    var isOn: Bool { capacity > 0 }

    /// Notes a page.
    ///
    /// What does not fit is not recorded.
    @inline(__always)
    borrowing func note(_ offset: Int) {
        guard capacity > 0, next.load(ordering: .relaxed) < capacity else { return }
        let index = next.add(1, ordering: .relaxed).oldValue
        guard index < capacity else { return }
        // One more than the offset: a place that was taken and is not written yet reads as nothing.
        unsafe entry(index).pointee.store(UInt64(offset) + 1, ordering: .releasing)
    }

    /// What was noted so far.
    borrowing func offsets() -> [UInt64] {
        (0..<min(capacity, next.load(ordering: .acquiring))).compactMap { index in
            let value = unsafe entry(index).pointee.load(ordering: .acquiring)
            return value > 0 ? value - 1 : nil
        }
    }

    private borrowing func entry(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe (memory.unsafeBaseAddress + index * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
