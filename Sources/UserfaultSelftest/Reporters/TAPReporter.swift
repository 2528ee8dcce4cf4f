/// TAP version 13 as the kernel's selftests print it.
final class TAPReporter: Reporter {
    let output: ReportOutput
    private var number = 0

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        output.line("TAP version 13")
        output.line("1..\(plan.count)")
        note("uffd-selftest \(Version.text) on Linux \(host.kernel) \(host.machine)")
        note("userfaultfd: \(host.featureNames.joined(separator: " "))")
        for fact in host.facts { note("\(fact.name): \(fact.value)") }
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        for part in line.split(separator: "\n") { output.line("# \(part)") }
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        number += 1
        output.line(result.outcome.tapLine("\(number) \(result.selected.title)", result.reason))
        if result.outcome == .fail, let reason = result.reason { note("failed: \(reason)") }
        result.detail.forEach(note)
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        if let stop { output.line("Bail out! stopped by \(stop)") }
        note(totals.line)
    }
}
