import SystemPackage

/// The results of a run on their way: running, or waiting to be reported in their order.
struct RunLoop {
    /// A result that has begun.
    private struct Place {
        let selected: SelectedResult
        var process: CaseProcess?
        var activity: HostActivity?
        /// Counts the times that it was begun.
        var attempt = 1
        /// What came of the tries before this one.
        var earlier: [String] = []
        /// What the kernel has complained about while it ran.
        var complaints: [String] = []
        /// What came of it; nil while it runs.
        var result: CaseResult?
    }

    /// How many results may wait to be reported for one that takes long.
    private static let mostPlaces = 32
    /// How often a result is begun that chance or other programs have kept from a verdict.
    private static let mostAttempts = 3

    private let options: Runner.Options
    private let host: Host
    private let reporter: any Reporter
    private let signals: FileDescriptor
    private let start = ContinuousClock.now
    private var schedule: Schedule
    private var conditions: Conditions
    private var watch: KernelWatch
    /// What has begun and is not reported yet, in the order of the report.
    private var places: [Place] = []
    /// Processes that nothing ends.
    private var unkillable: Set<Int32> = []
    private var ending: Runner.Ending

    /// - Parameter ending: What has come of the run already, such as a signal.
    init(
        _ plan: Plan, options: Runner.Options, host: Host, conditions: Conditions, watch: KernelWatch,
        reporter: any Reporter, signals: FileDescriptor, ending: Runner.Ending
    ) {
        schedule = Schedule(plan)
        self.options = options
        self.host = host
        self.conditions = conditions
        self.watch = watch
        self.reporter = reporter
        self.signals = signals
        self.ending = ending
    }

    mutating func run() -> Runner.Ending {
        while true {
            while goesOn, let next = schedule.first, mayStart(next) {
                schedule.removeFirst()
                begin(next)
                report()
            }
            guard goesOn, !running.isEmpty else { break }
            waitForOne()
            report()
        }
        for place in places where place.result == nil { place.process?.abandon() }
        places.removeAll { $0.result == nil }
        report()
        conditions.release()
        ending.troubles += conditions.finish()
        return ending
    }

    private var goesOn: Bool { ending.stop == nil && reporter.isHeard }

    private var running: [CaseProcess] { places.compactMap { $0.result == nil ? $0.process : nil } }

    private func mayStart(_ next: SelectedResult) -> Bool {
        let running = places.filter { $0.result == nil }
        if running.isEmpty { return true }
        return running.count < options.jobs && places.count < Self.mostPlaces && !next.isAlone
            && !running.contains { $0.selected.isAlone }
    }

    /// Gives a result a place and starts its process, or skips it.
    private mutating func begin(_ selected: SelectedResult) {
        reporter.starting(selected)
        places.append(Place(selected: selected))
        if let budget = options.timeBudget, ContinuousClock.now - start >= budget {
            ending.outOfTime += 1
            return skip(places.count - 1, .options("the time budget of \(budget) is used up"))
        }
        startProcess(places.count - 1)
    }

    /// Starts the process of the result that has a place, or skips it.
    private mutating func startProcess(_ index: Int) {
        let selected = places[index].selected
        let freeHugePages = HugePagePool.free
        let readiness = conditions.prepare(selected, attempt: places[index].attempt)
        if let signal = readSignal(signals) { return ending.stop = .signal(signal) }
        switch readiness {
        case .missing(let lack): skip(index, lack)
        case .ready(let environment):
            let limit = options.timeout ?? conditions.stretched(selected.selftestCase.limit)
            let patience = options.timeout.map { ["\(Waiting.variable)=\(Int($0.inSeconds))"] } ?? []
            let activity = HostActivity(freeHugePages: freeHugePages)
            do {
                places[index].process = try CaseProcess(
                    identity: selected.identity, environment: environment + patience, limit: limit,
                    isExtensible: options.timeout == nil)
                places[index].activity = activity
            } catch {
                // That processes can be started was seen when the run began.
                let chance = CaseSkip(thisTime: "its process could not be started: \(error)")
                skip(index, Lack(reason: chance.reason, cause: chance.cause))
            }
        }
    }

    private mutating func skip(_ index: Int, _ lack: Lack) {
        conditions.release()
        var result = CaseResult(selected: places[index].selected, seconds: 0, detail: places[index].earlier)
        result.skip(lack.reason, lack.cause)
        places[index].result = result
    }

    /// Waits until a process has ended, and keeps what came of it.
    private mutating func waitForOne() {
        switch CaseProcess.waitForOne(of: running, signals: signals) {
        case .signal(let signal): ending.stop = .signal(signal)
        case .ended(let process, let cause):
            guard let index = places.firstIndex(where: { $0.process === process }) else { return }
            let others = running.filter { $0 !== process }.map(\.pid)
            let end = process.ending(cause, sparing: conditions.ownProcesses.union(others).union(unkillable))
            unkillable.formUnion(end.strays.unkillable)
            var result = end.result(of: places[index].selected, limit: process.limit)
            let isLastTry = places[index].attempt == Self.mostAttempts
            places[index].activity?.explain(&result, ofProcessKilled: end.wasKilled, isLastTry: isLastTry)
            conditions.release()
            noticeComplaints()
            if result.isByChance, !isLastTry, places[index].complaints.isEmpty, goesOn {
                tryAgain(index, after: result)
            } else {
                result.detail += places[index].earlier
                places[index].result = result
            }
        }
    }

    /// Begins a result again that came to no verdict.
    private mutating func tryAgain(_ index: Int, after result: CaseResult) {
        places[index].earlier.append("try \(places[index].attempt): \(result.reason ?? "")")
        places[index].attempt += 1
        places[index].process = nil
        startProcess(index)
    }

    /// Keeps what the kernel complains about with everything that runs: nobody knows whose fault it is.
    private mutating func noticeComplaints() {
        let complaints = watch.complaints()
        guard !complaints.isEmpty else { return }
        let indices = places.indices.filter { places[$0].result == nil }
        let titles = indices.map { places[$0].selected.title }
        let note = "side by side ran \(titles.joined(separator: ", ")): --jobs 1 shows whose fault it is"
        for index in indices { places[index].complaints += complaints + (indices.count > 1 ? [note] : []) }
    }

    /// Reports what is done, in order.
    private mutating func report() {
        while let place = places.first, let result = place.result {
            places.removeFirst()
            var complaints = place.complaints
            if schedule.first == nil, places.isEmpty {
                // To put the host back is a part of the run's last result.
                ending.troubles += conditions.finish()
                complaints += watch.complaints()
            }
            let judged = judged(result, complaints)
            ending.totals.count(judged)
            if judged.outcome == .fail, unnamed(judged) != nil { ending.unnamed += 1 }
            reporter.finished(judged)
            let isLast = schedule.first == nil && places.isEmpty
            if judged.outcome == .fail, options.stopsAtFailure, !isLast, ending.stop == nil {
                ending.stop = .firstFailure
            }
        }
    }

    /// The result as the options want it.
    private func judged(_ result: CaseResult, _ complaints: [String]) -> CaseResult {
        var result = result
        if !complaints.isEmpty { result.fail("the kernel complained", detail: complaints) }
        if let known = options.knownFailures.known(for: result.selected, release: host.kernel) {
            result.excuse(known)
        }
        if options.requireNoSkips, result.outcome == .skip {
            result.fail("skipped: \(result.reason ?? "")", detail: [])
        }
        guard result.outcome == .fail else { return result }
        if let known = unnamed(result) { result.detail.append("known of this kernel: \(known.reason)") }
        result.detail.append("again: \(command(for: result.selected))")
        return result
    }

    /// What is known of a failure although the command line has not named any.
    private func unnamed(_ result: CaseResult) -> KnownFailures.Known? {
        guard options.knownFailures.isEmpty else { return nil }
        return KnownFailures.builtIn.known(for: result.selected, release: host.kernel)
    }

    /// The command line that runs one result as this run did.
    private func command(for selected: SelectedResult) -> String {
        let glob = selected.identity.map { "*?[\\".contains($0) ? "\\\($0)" : "\($0)" }.joined()
        let changes = options.systemChanges ? "" : " --no-system-changes"
        let loss = options.losesMemory ? " --lose-memory" : ""
        return "uffd-selftest run --filter '\(glob)'\(changes)\(loss)"
    }
}
