internal import Synchronization

// Any thread may ask.

/// The ids of the pager's own threads: a fault of one of them is one that it would wait for itself.
///
/// As long as the most threads that there ever were at once, whichever they were.
@safe
final class ThreadSet: @unchecked Sendable {
    private static var capacity: Int { 1024 }
    private static var free: Int32 { 0 }
    private let slots: UnsafeMutablePointer<Atomic<Int32>>
    /// The slots from here on were never used.
    private let end = Atomic<Int>(0)

    init() {
        unsafe slots = .allocate(capacity: Self.capacity)
        for index in 0..<Self.capacity { unsafe (slots + index).initialize(to: Atomic(Self.free)) }
    }

    deinit {
        unsafe slots.deallocate()
    }

    /// Where there is no room any more, a thread is not known: its self-deadlocks are not noticed.
    func insert(_ thread: Int32) {
        for index in 0..<Self.capacity where replace(Self.free, at: index, with: thread) {
            end.max(index + 1, ordering: .relaxed)
            return
        }
    }

    func remove(_ thread: Int32) {
        for index in 0..<end.load(ordering: .relaxed) where replace(thread, at: index, with: Self.free) { return }
    }

    func contains(_ thread: Int32) -> Bool {
        // The thread of every fault where the kernel does not tell it.
        guard thread != Self.free else { return false }
        for index in 0..<end.load(ordering: .relaxed) where unsafe slots[index].load(ordering: .relaxed) == thread {
            return true
        }
        return false
    }

    private func replace(_ expected: Int32, at index: Int, with thread: Int32) -> Bool {
        unsafe slots[index].compareExchange(expected: expected, desired: thread, ordering: .relaxed).exchanged
    }
}
