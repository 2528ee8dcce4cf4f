internal import Synchronization

/// The ids of the pager's own threads: a fault of one of them is one that it would wait for itself.
@safe
final class ThreadSet: @unchecked Sendable {
    private static var capacity: Int { 1024 }
    private static var gone: Int32 { -1 }
    private let slots: UnsafeMutablePointer<Atomic<Int32>>

    init() {
        unsafe slots = .allocate(capacity: Self.capacity)
        for index in 0..<Self.capacity { unsafe (slots + index).initialize(to: Atomic(0)) }
    }

    deinit {
        unsafe slots.deallocate()
    }

    /// Where there is no room any more, a thread is not known: its self-deadlocks are not noticed.
    func insert(_ thread: Int32) {
        for probe in 0..<Self.capacity {
            let slot = unsafe slots + (Int(thread) + probe) % Self.capacity
            for free in [0, Self.gone] {
                if unsafe slot.pointee.compareExchange(expected: free, desired: thread, ordering: .relaxed).exchanged {
                    return
                }
            }
        }
    }

    func remove(_ thread: Int32) {
        for probe in 0..<Self.capacity {
            let slot = unsafe slots + (Int(thread) + probe) % Self.capacity
            if unsafe slot.pointee.compareExchange(expected: thread, desired: Self.gone, ordering: .relaxed).exchanged {
                return
            }
        }
    }

    func contains(_ thread: Int32) -> Bool {
        // The thread of every fault where the kernel does not tell it.
        guard thread != 0 else { return false }
        for probe in 0..<Self.capacity {
            let found = unsafe slots[(Int(thread) + probe) % Self.capacity].load(ordering: .relaxed)
            if found == thread { return true }
            if found == 0 { return false }
        }
        return false
    }
}
