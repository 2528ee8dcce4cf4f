internal import Synchronization
internal import UserfaultFD

// Taken from by every thread that serves a fault of its own.

/// Workbenches for threads that are not the engine's: made before the first fault, one for each fault at a time.
@safe
final class BenchPool: @unchecked Sendable {
    private let benches: UnsafeMutableBufferPointer<Workbench>
    /// The thread that has each bench; 0 for none.
    ///
    /// Together, because a thread looks at several of them.
    private let holders: UnsafeMutablePointer<Atomic<UInt>>
    private var count = 0
    /// Counts benches that were given back: what threads that found none wait for.
    private let returned = FutexWord()
    private let waiters = Atomic<Int>(0)

    init(capacity: Int) {
        unsafe benches = .allocate(capacity: capacity)
        unsafe holders = .allocate(capacity: capacity)
        for index in 0..<capacity { unsafe (holders + index).initialize(to: Atomic(0)) }
    }

    deinit {
        for index in 0..<count { unsafe benches.deinitializeElement(at: index) }
        unsafe holders.deinitialize(count: benches.count)
        unsafe holders.deallocate()
        unsafe benches.deallocate()
    }

    /// Adds a bench, before anybody takes one.
    func add(_ bench: consuming Workbench) {
        unsafe benches.initializeElement(at: count, to: bench)
        count += 1
    }

    func forEachRecord(_ body: (ThreadRecord) -> Void) {
        for index in 0..<count { unsafe body(benches[index].record) }
    }

    /// Calls with a bench of the calling thread's own; waits for one while all are in use.
    ///
    /// - Returns: `nil` if the thread has one already.
    @inline(__always)
    func withBench<Result>(_ body: (inout Workbench) -> Result) -> Result? {
        let thread = FaultSignal.threadToken
        if FaultSignal.mayBeNested, hasBench(thread) { return nil }
        let index = take(for: thread)
        unsafe benches[index].record.takeRow()
        let result = unsafe body(&benches[index])
        unsafe holders[index].store(0, ordering: .sequentiallyConsistent)
        if waiters.load(ordering: .sequentiallyConsistent) > 0 { returned.signal(waking: 1) }
        return result
    }

    private func hasBench(_ thread: UInt) -> Bool {
        (0..<count).contains { unsafe holders[$0].load(ordering: .relaxed) == thread }
    }

    private func take(for thread: UInt) -> Int {
        var isWaiting = false
        defer { if isWaiting { waiters.subtract(1, ordering: .relaxed) } }
        // Threads begin at different places, whatever the distance between their stacks.
        let first = Int((thread &* 0x9e37_79b9_7f4a_7c15) >> 32) % count
        while true {
            let seen = returned.changes
            var index = first
            repeat {
                let isFree = unsafe holders[index].load(ordering: .sequentiallyConsistent) == 0
                if isFree,
                    unsafe holders[index].compareExchange(
                        expected: 0, desired: thread, ordering: .sequentiallyConsistent
                    ).exchanged
                {
                    return index
                }
                index = index + 1 == count ? 0 : index + 1
            } while index != first
            if isWaiting {
                returned.wait(while: seen, until: .never)
            } else {
                // Looked at once more before sleeping: one may have been given back before this thread was seen to wait.
                waiters.add(1, ordering: .sequentiallyConsistent)
                isWaiting = true
            }
        }
    }
}
