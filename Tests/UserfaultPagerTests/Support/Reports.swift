import Synchronization
import UserfaultFD

@testable import UserfaultPager

/// Collects what a pager reports.
final class Reports: Sendable {
    private let reports = Mutex<[PagerReport]>([])

    func add(_ report: PagerReport) { reports.withLock { $0.append(report) } }

    var all: [PagerReport] { reports.withLock { $0 } }

    /// Waits for a report: `false` where it does not come.
    func waitFor(_ report: PagerReport) -> Bool { wait { $0.contains(report) } }

    func wait(_ isEnough: ([PagerReport]) -> Bool) -> Bool {
        let deadline = MonotonicInstant.now.nanoseconds + 20_000_000_000
        while MonotonicInstant.now.nanoseconds < deadline {
            if reports.withLock({ isEnough($0) }) { return true }
            NativeThread.yield()
        }
        return false
    }
}
