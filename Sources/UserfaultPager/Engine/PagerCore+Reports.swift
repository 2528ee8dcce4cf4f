internal import Synchronization
internal import UserfaultFD

// What the user is told, on a thread of its own: who keeps it waiting holds up nothing else.

extension PagerCore where Source: ~Copyable {
    /// Leaves a report for the user.
    ///
    /// Does not wait and takes no memory.
    func note(_ report: PagerReport) {
        guard configuration.report != nil else { return }
        // The ring's lock may be needed by a fault of this thread's.
        BlockedSignals.during(if: isInThread) { reports.put(report) }
    }

    /// What the reporter does: gives the user what was left for him, until the pager stops.
    func deliver() {
        while true {
            let isClosed = reports.isClosed
            deliverReports()
            if isClosed { return }
            reports.wait()
        }
    }

    /// Gives the user what was left for him.
    func deliverReports() {
        for report in reports.takeAll() {
            configuration.report?(report)
            // Not before the report is out: this ends the process.
            if case .selfDeadlock(_, let address) = report { endSelfDeadlock(at: address) }
        }
    }
}
