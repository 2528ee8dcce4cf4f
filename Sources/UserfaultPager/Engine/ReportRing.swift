internal import Synchronization
internal import UserfaultFD

// Any thread puts reports in, the reporter takes them out.

/// Reports on their way to the watchdog.
///
/// What does not fit is dropped: the first ones say what went wrong.
@safe
final class ReportRing: @unchecked Sendable {
    @safe private struct State: ~Copyable {
        var reports: UnsafeMutableBufferPointer<PagerReport>
        var count = 0
    }

    private let state: Mutex<State>
    private let capacity: Int
    /// Counts what is left: what the reporter looks at.
    private let signals = FutexWord()
    private let closed = Atomic<Bool>(false)
    private let seen = Atomic<UInt32>(0)

    init(capacity: Int = 256) {
        self.capacity = capacity
        let reports = UnsafeMutableBufferPointer<PagerReport>.allocate(capacity: capacity)
        state = unsafe Mutex(State(reports: reports))
    }

    deinit {
        state.withLock { unsafe $0.reports.deallocate() }
    }

    /// Leaves a report, without waiting for anybody and without memory.
    func put(_ report: PagerReport) {
        state.withLock { state in
            guard unsafe state.count < state.reports.count else { return }
            unsafe state.reports.initializeElement(at: state.count, to: report)
            state.count += 1
        }
        signals.signal(waking: 1)
    }

    /// Whether no further reports are to be waited for.
    var isClosed: Bool { closed.load(ordering: .sequentiallyConsistent) }

    func close() {
        closed.store(true, ordering: .sequentiallyConsistent)
        signals.signal()
    }

    /// Waits until something was left since the last call, or it is closed; for one thread.
    func wait() {
        let now = signals.changes
        if now == seen.load(ordering: .relaxed), !isClosed { signals.wait(while: now, until: .never) }
        seen.store(signals.changes, ordering: .relaxed)
    }

    /// Takes all reports.
    func takeAll() -> [PagerReport] {
        guard state.withLock({ $0.count }) > 0 else { return [] }
        // The memory is taken before the lock: who leaves a report may have to go on for a fork that holds the heap.
        return unsafe [PagerReport](unsafeUninitializedCapacity: capacity) { taken, count in
            count = state.withLock { state in
                defer { state.count = 0 }
                for index in 0..<state.count { unsafe taken.initializeElement(at: index, to: state.reports[index]) }
                return state.count
            }
        }
    }
}
