import Logging
import Synchronization
import UserfaultPager
import UserfaultPagerService

/// Logs what a pager has to say of one client: the first reports, since a client can cause as many as it likes.
final class ReportLog: Sendable {
    /// The most that are logged.
    private static let limit = 20

    private let logger: Logger
    private let count = Mutex(0)

    init(_ logger: Logger) { self.logger = logger }

    func log(_ report: PagerReport) {
        // The one of each session.
        if case .ownerGone = report { return logger.log(report) }
        let number = count.withLock { count in
            count += 1
            return count
        }
        if number <= Self.limit { logger.log(report) }
        if number == Self.limit { logger.warning("further problems of this client are counted, and not logged") }
    }

    /// How many were not logged.
    var unlogged: Int { max(0, count.withLock { $0 } - Self.limit) }
}
