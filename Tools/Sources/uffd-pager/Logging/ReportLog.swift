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
    /// Calls of the source that have failed since the last one that has not.
    private let failures = Atomic(0)

    private let keepers: Keepers?

    /// - Parameter keepers: Are told that pages were lost: counters end with this process.
    init(_ logger: Logger, _ keepers: Keepers?) {
        self.logger = logger
        self.keepers = keepers
    }

    func log(_ report: PagerReport) {
        if case .failed = report { keepers?.noteFailure() }
        // The one of each session.
        if case .ownerGone = report { return logger.log(report) }
        logFirst { logger.log(report) }
    }

    /// The source could not load a page: the first time is an error, and the attempts that follow help to find a problem.
    func noteNotLoaded(offset: Int, _ error: String) {
        let number = failures.add(1, ordering: .relaxed).newValue
        let metadata: Logger.Metadata = ["offset": "\(offset)", "error": "\(error)"]
        if number > 1 { return logger.debug("the memory can still not be read", metadata: metadata) }
        logFirst { logger.error("the memory cannot be read", metadata: metadata) }
    }

    /// The source has loaded a page.
    func noteLoaded() {
        guard failures.load(ordering: .relaxed) > 0 else { return }
        let count = failures.exchange(0, ordering: .relaxed)
        guard count > 0 else { return }
        logFirst { logger.info("the memory can be read again", metadata: ["failures": "\(count)"]) }
    }

    /// The client is lost.
    func noteLost(_ error: String, _ fate: Fate) {
        keepers?.noteFailure()
        logger.error("a client cannot be served any more, \(fate)", metadata: ["error": "\(error)"])
    }

    private func logFirst(_ body: () -> Void) {
        let number = count.withLock { count in
            count += 1
            return count
        }
        if number <= Self.limit { body() }
        if number == Self.limit { logger.warning("further problems of this client are counted, and not logged") }
    }

    /// How many were not logged.
    var unlogged: Int { max(0, count.withLock { $0 } - Self.limit) }
}
