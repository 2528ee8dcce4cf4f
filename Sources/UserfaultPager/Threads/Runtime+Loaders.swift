internal import Synchronization
internal import UserfaultFD

// Loaders, and the reporter.

extension Runtime {
    /// What a loader does: the most urgent work of any pager, the pagers in turns; sleeps while there is none.
    ///
    /// Faults go before jobs, whichever pager they are of.
    ///
    /// - Parameter stays: Until the runtime ends, even if there is nothing to do.
    func load(with bench: inout Workbench, stays: Bool) {
        bench.thread = NativeThread.currentID
        while !isEnding.load(ordering: .acquiring) {
            let seen = work.signals
            var next = UInt64.max
            if doSome(with: &bench, next: &next) { continue }
            if !stays, !hasWork { return }
            work.wait(while: seen, until: Deadline(at: MonotonicInstant(nanoseconds: next)))
        }
    }

    private var hasWork: Bool { members.contains { $0.queue.hasWork } }

    private func doSome(with bench: inout Workbench, next: inout UInt64) -> Bool {
        let members = members
        guard !members.isEmpty else { return false }
        let first = rotation.add(1, ordering: .relaxed).oldValue
        for offset in 0..<members.count {
            let member = members[Int(UInt(bitPattern: first &+ offset) % UInt(members.count))]
            if member.serveFaults(with: &bench, next: &next) { return true }
        }
        for priority in Job.Priority.allCases {
            for offset in 0..<members.count {
                let member = members[Int(UInt(bitPattern: first &+ offset) % UInt(members.count))]
                if member.queue.hasJobs, member.serveJob(priority, with: &bench, next: &next) { return true }
            }
        }
        return false
    }

    /// What the reporter does: tells users what there is to tell, until the runtime ends.
    func deliverReports() {
        reporter.store(NativeThread.currentID, ordering: .relaxed)
        while true {
            let seen = reports.signals
            let isLast = isEnding.load(ordering: .acquiring)
            let all = state.withLock { state in
                defer { state.leaving = [] }
                return state.members + state.leaving
            }
            for member in all {
                reporting.store(address(of: member), ordering: .sequentiallyConsistent)
                member.deliverReports()
            }
            reporting.store(0, ordering: .sequentiallyConsistent)
            if isLast { return }
            reports.wait(while: seen, until: .never)
        }
    }

    /// Whether the reporter is with the user of another pager.
    func isReporting(forOtherThan member: any RuntimeMember) -> Bool {
        let current = reporting.load(ordering: .sequentiallyConsistent)
        return current != 0 && current != address(of: member)
    }

    private func address(of member: any RuntimeMember) -> UInt {
        UInt(bitPattern: unsafe Unmanaged.passUnretained(member as AnyObject).toOpaque())
    }
}
