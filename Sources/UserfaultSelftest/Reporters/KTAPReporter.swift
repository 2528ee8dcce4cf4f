/// The kernel's test protocol, KTAP version 1: a case is a test, and its memory types are the tests nested in it.
final class KTAPReporter: Reporter {
    let output: ReportOutput
    /// How many results each case has.
    private var counts: [String: Int] = [:]
    /// The results of the case that is running now.
    private var current: [CaseResult] = []
    private var number = 0

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        counts = plan.results.reduce(into: [:]) { $0[$1.selftestCase.name, default: 0] += 1 }
        output.line("KTAP version 1\n1..\(counts.count * plan.repetitions)")
        note("uffd-selftest \(Version.text) on Linux \(host.kernel) \(host.machine)")
        note("userfaultfd: \(host.featureNames.joined(separator: " "))")
        for fact in host.facts { note("\(fact.name): \(fact.value)") }
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) { write(note: line, indent: "") }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        let name = result.selected.selftestCase.name
        if let memory = result.selected.memory {
            if current.isEmpty { output.line("  KTAP version 1\n  1..\(counts[name] ?? 0)") }
            current.append(result)
            write(result.outcome, "\(current.count) \(memory.rawValue)", result.reason, indent: "  ")
            write(detailOf: result, indent: "  ")
            guard current.count == counts[name] else { return }
        } else {
            current = [result]
            write(detailOf: result, indent: "")
        }
        endCase()
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        if !current.isEmpty { endCase() }
        if let stop { output.line("Bail out! stopped by \(stop)") }
        note(totals.line)
    }

    /// The result of a case is the worst of those nested in it.
    private func endCase() {
        number += 1
        let outcomes = current.map(\.outcome)
        let worst = [CaseResult.Outcome.fail, .xfail, .pass].first(where: outcomes.contains) ?? .skip
        let selected = current[0].selected
        let run = selected.iteration.map { " (run \($0.number) of \($0.of))" } ?? ""
        let reason = current.first { $0.outcome == worst }?.reason
        write(worst, "\(number) \(selected.selftestCase.name)\(run)", reason, indent: "")
        current = []
    }

    private func write(_ outcome: CaseResult.Outcome, _ name: String, _ reason: String?, indent: String) {
        output.line(indent + outcome.tapLine(name, reason))
    }

    private func write(detailOf result: CaseResult, indent: String) {
        if result.outcome == .fail, let reason = result.reason { write(note: "failed: \(reason)", indent: indent) }
        for line in result.detail { write(note: line, indent: indent) }
    }

    private func write(note: String, indent: String) {
        for part in note.split(separator: "\n") { output.line("\(indent)# \(part)") }
    }
}

extension CaseResult.Outcome {
    /// A result's line in TAP and in KTAP.
    func tapLine(_ name: String, _ reason: String?) -> String {
        let reason = reason.map { $0.replacing("\n", with: " ") } ?? ""
        return switch self {
        case .pass: "ok \(name)"
        case .skip: "ok \(name) # SKIP \(reason)"
        case .xfail: "ok \(name) # XFAIL \(reason)"
        case .fail: "not ok \(name)"
        }
    }
}

extension Totals {
    /// The last line of a report of kselftest.
    var line: String {
        "Totals: pass:\(pass) fail:\(fail) xfail:\(xfail) xpass:\(xpass) skip:\(skip) error:0"
    }
}
