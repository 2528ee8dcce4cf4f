internal import Synchronization
internal import UserfaultFD

// Taken from by every thread that serves a fault of its own.

/// Workbenches for threads that are not the engine's: made before the first fault, one for each fault at a time.
@safe
final class BenchPool: @unchecked Sendable {
    private struct Place: ~Copyable {
        var bench: Workbench
        /// The thread that has it; 0 for none.
        let holder = Atomic<UInt>(0)
    }

    private let places: UnsafeMutableBufferPointer<Place>
    private var count = 0
    /// Counts benches that were given back: what threads that found none wait for.
    private let returned = FutexWord()
    private let waiters = Atomic<Int>(0)

    init(capacity: Int) {
        unsafe places = .allocate(capacity: capacity)
    }

    deinit {
        for index in 0..<count { unsafe places.deinitializeElement(at: index) }
        unsafe places.deallocate()
    }

    /// Adds a bench, before anybody takes one.
    func add(_ bench: consuming Workbench) {
        unsafe places.initializeElement(at: count, to: Place(bench: bench))
        count += 1
    }

    func forEachRecord(_ body: (ThreadRecord) -> Void) {
        for index in 0..<count { unsafe body(places[index].bench.record) }
    }

    /// Calls with a bench of the calling thread's own; waits for one while all are in use.
    ///
    /// - Returns: `nil` if the thread has one already.
    @inline(__always)
    func withBench<Result>(_ body: (inout Workbench) -> Result) -> Result? {
        let thread = FaultSignal.threadToken
        guard let index = take(for: thread) else { return nil }
        let result = unsafe body(&places[index].bench)
        unsafe places[index].holder.store(0, ordering: .sequentiallyConsistent)
        if waiters.load(ordering: .sequentiallyConsistent) > 0 { returned.signal(waking: 1) }
        return result
    }

    private func take(for thread: UInt) -> Int? {
        var isWaiting = false
        defer { if isWaiting { waiters.subtract(1, ordering: .relaxed) } }
        // Neighbouring threads begin at different places; what they share is looked at by all.
        let first = Int(truncatingIfNeeded: thread >> 16)
        while true {
            let seen = returned.changes
            var free: Int?
            for offset in 0..<count {
                let index = abs((first &+ offset) % count)
                let holder = unsafe places[index].holder.load(ordering: .sequentiallyConsistent)
                if holder == thread { return nil }
                if holder == 0, free == nil { free = index }
            }
            if let free,
                unsafe places[free].holder.compareExchange(
                    expected: 0, desired: thread, ordering: .sequentiallyConsistent
                ).exchanged
            {
                return free
            }
            guard free == nil else { continue }
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
