internal import Synchronization
internal import UserfaultFD

// Any thread puts reports in, the reporter takes them out.

/// Reports on their way to the user.
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
    /// What the reporter waits for.
    private let signals: SharedFutex
    /// Reports that were put in and not delivered.
    private let outstanding = Atomic<Int>(0)

    init(capacity: Int = 256, signals: SharedFutex) {
        self.capacity = capacity
        self.signals = signals
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
            outstanding.add(1, ordering: .relaxed)
        }
        signals.signal()
    }

    /// Whether all was delivered.
    var isDelivered: Bool { outstanding.load(ordering: .acquiring) == 0 }

    /// Says that reports that were taken are delivered.
    func noteDelivered(_ count: Int) {
        outstanding.subtract(count, ordering: .releasing)
        signals.signal()
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
