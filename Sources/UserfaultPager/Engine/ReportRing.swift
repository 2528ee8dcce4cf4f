internal import Synchronization

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

    init(capacity: Int = 256) {
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
    }

    /// Takes all reports.
    func takeAll() -> [PagerReport] {
        state.withLock { state in
            defer { state.count = 0 }
            return unsafe Array(state.reports.prefix(state.count))
        }
    }
}
