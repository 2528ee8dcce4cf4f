import CSelftestSupport
import Glibc
import SystemPackage

/// Runs the selected results one after the other, each in a process of its own, and tells a reporter about each.
package struct Runner {
    package struct Options {
        package var selection = Selection()
        /// Replaces the limit that each case has.
        package var timeout: Duration?
        package var repetitions = 1
        package var systemChanges = true
        /// Makes any skip a failure.
        package var requireNoSkips = false

        package init() {}
    }

    /// How a run ended.
    package struct Ending {
        package var totals = Totals()
        /// The signal that ended the run before its time.
        package var signal: Int32?
        /// What the run could not put back on the host.
        package var troubles: [String] = []

        /// 0 when all passed or was lawfully skipped, 4 when all was skipped, 1 when something failed or the host is
        /// not as it was.
        package var exitCode: Int32 {
            totals.fail > 0 || !troubles.isEmpty ? 1 : totals.pass > 0 ? 0 : 4
        }
    }

    private let options: Options
    private let host: Host

    package init(options: Options, host: Host = Host()) {
        self.options = options
        self.host = host
    }

    package func run(reporter: any Reporter) throws -> Ending {
        let plan = Plan(results: options.selection.results(), repetitions: options.repetitions)
        closeInheritedDescriptorsOnExec()
        // Whatever a case leaves behind becomes a child of the runner, and can be found and killed.
        try checked(css_become_subreaper())
        let signals = FileDescriptor(rawValue: try checked(css_signal_descriptor()))
        defer { try? signals.close() }
        var watch = KernelWatch()
        let start = ContinuousClock.now
        var ending = Ending()

        reporter.begin(plan, on: host)
        for note in watch.notes { reporter.note(note) }
        var conditions = conditions(signals, reporter, &ending)
        var number = 0
        while number < plan.count, ending.signal == nil, reporter.isHeard {
            let selected = plan[number]
            number += 1
            reporter.starting(selected)
            guard var result = one(selected, &conditions, signals, &ending) else { break }
            if number == plan.count { ending.troubles = conditions.finish() }
            let complaints = watch.complaints()
            if options.requireNoSkips, result.outcome == .skip {
                result.fail("skipped: \(result.reason ?? "")", detail: [])
            }
            if !complaints.isEmpty { result.fail("the kernel complained", detail: complaints) }
            ending.totals.count(result.outcome)
            reporter.finished(result)
        }
        ending.troubles += conditions.finish()
        for trouble in ending.troubles { reporter.note("not put back: \(trouble)") }
        reporter.end(ending.totals, seconds: (ContinuousClock.now - start).inSeconds, signal: ending.signal)
        return ending
    }

    /// Measures what the processes of the cases will have.
    private func conditions(
        _ signals: FileDescriptor, _ reporter: any Reporter, _ ending: inout Ending
    ) -> Conditions {
        let changes = SystemChanges(
            areAllowed: options.systemChanges, isRoot: host.isRoot, signals: signals, tell: reporter.note)
        var means = Means.assumed
        var impossible = host.unusable
        if impossible == nil {
            switch Measurement.make(signals: signals) {
            case .done(let measured): means = measured
            case .failed(let why): reporter.note(why)
            case .impossible(let why):
                impossible = why
                reporter.note(why)
            case .interrupted(let signal): ending.signal = signal
            }
        }
        if means.slowness > 1.5 {
            reporter.note("this host is slow: every limit is \(Int(means.slowness.rounded())) times as long")
        }
        return Conditions(host: host, means: means, impossible: impossible, changes: changes)
    }

    /// Runs one result; nil when the run is to stop.
    private func one(
        _ selected: SelectedResult, _ conditions: inout Conditions, _ signals: FileDescriptor, _ ending: inout Ending
    ) -> CaseResult? {
        defer { conditions.release() }
        let readiness = conditions.prepare(selected)
        if let signal = readSignal(signals) {
            ending.signal = signal
            return nil
        }
        switch readiness {
        case .missing(let reason):
            return CaseResult(selected: selected, outcome: .skip, reason: reason, seconds: 0, detail: [])
        case .ready(let environment):
            let limit = options.timeout ?? conditions.stretched(selected.selftestCase.limit)
            let patience = options.timeout.map { ["\(Waiting.variable)=\(Int($0.inSeconds))"] } ?? []
            let activity = HostActivity()
            do {
                let process = try CaseProcess(identity: selected.identity, environment: environment + patience)
                let end = process.wait(limit: limit, signals: signals, sparing: conditions.ownProcesses)
                if case .interrupted(let signal) = end.cause {
                    ending.signal = signal
                    return nil
                }
                var result = end.result(of: selected, limit: limit)
                activity.explain(&result, ofProcessKilled: end.wasKilled)
                return result
            } catch {
                // That processes can be started was seen when the run began.
                return CaseResult(
                    selected: selected, outcome: .skip, reason: "this time its process could not be started: \(error)",
                    seconds: 0, detail: [])
            }
        }
    }
}

extension String {
    /// The same without control characters, which a crashing case may print and no report should obey.
    fileprivate var printable: String {
        String(String.UnicodeScalarView(unicodeScalars.map { $0.value < 32 && $0 != "\n" && $0 != "\t" ? "?" : $0 }))
    }
}

extension CaseProcess.Ending {
    /// Whether somebody else has killed the process, as the kernel does when memory runs out.
    fileprivate var wasKilled: Bool {
        if case .signaled(SIGKILL) = cause { true } else { false }
    }

    /// What the end of the process and its messages say together.
    fileprivate func result(of selected: SelectedResult, limit: Duration) -> CaseResult {
        var result = CaseResult(selected: selected, outcome: .pass, reason: nil, seconds: seconds, detail: [])
        var verdict: CaseMessage?
        for message in messages {
            if case .note(let note) = message { result.detail.append(note) } else { verdict = message }
        }
        switch (cause, verdict) {
        case (.hung(let report), _):
            result.fail("it did not end within \(limit)", detail: report)
        case (.signaled(let signal), _):
            result.fail("it was killed by \(SignalName.of(signal))", detail: [])
        case (.exited(0), .passed):
            break
        case (.exited(0), .skipped(let reason)):
            result.outcome = .skip
            result.reason = reason
        case (.exited(0), .failed(let reason, let detail)):
            result.fail(reason, detail: detail)
        case (.exited(let code), _):
            result.fail("it ended with exit code \(code) and without a verdict", detail: [])
        case (.interrupted, _):
            result.fail("the run was interrupted", detail: [])
        }
        if strays > 0 { result.detail.append("it left \(strays) processes behind, which were killed") }
        if result.outcome == .fail {
            if !result.detail.contains(where: { $0.hasPrefix("breaks: ") }) {
                result.detail.insert("breaks: \(selected.selftestCase.summary)", at: 0)
            }
            result.detail += output.split(separator: "\n").map { "printed: \($0.prefix(200))" }
        }
        result.detail = result.detail.map(\.printable)
        return result
    }
}
