internal import Synchronization
internal import UserfaultFD

// What the user is told, on a thread of its own: who keeps it waiting holds up nothing else.

extension PagerCore where Source: ~Copyable {
    /// Leaves a report for the user.
    ///
    /// Does not wait and takes no memory.
    func note(_ report: PagerReport) {
        guard let reports else { return }
        // The ring's lock may be needed by a fault of this thread's.
        BlockedSignals.during(if: isInThread) { reports.put(report) }
    }

    /// Gives the user what was left for him.
    func deliverReports() {
        guard let reports else { return }
        let taken = reports.takeAll()
        guard !taken.isEmpty else { return }
        for report in taken {
            configuration.report?(report)
            // Not before the report is out: this ends the process.
            if case .selfDeadlock(_, let address) = report { endSelfDeadlock(at: address) }
        }
        reports.noteDelivered(taken.count)
    }

    /// Waits until the user was given all that was left for him, unless he holds up the reporter elsewhere, or stops the
    /// pager in a report.
    func awaitReports(until deadline: Deadline) {
        guard let reports, runtime.hasReporter.load(ordering: .acquiring),
            runtime.reporter.load(ordering: .relaxed) != NativeThread.currentID
        else { return }
        while !reports.isDelivered, !deadline.hasPassed {
            let seen = runtime.reports.signals
            if reports.isDelivered || runtime.isReporting(forOtherThan: self) { return }
            runtime.reports.wait(while: seen, until: deadline)
        }
    }
}
