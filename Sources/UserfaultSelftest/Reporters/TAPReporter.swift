/// TAP version 13, as the kernel's own kselftest prints it.
final class TAPReporter: Reporter {
    let output: ReportOutput
    private var number = 0

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        output.line("TAP version 13")
        output.line("1..\(plan.count)")
        note("Linux \(host.kernel) \(host.machine), userfaultfd: \(host.featureNames.joined(separator: " "))")
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        for part in line.split(separator: "\n") { output.line("# \(part)") }
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        number += 1
        let name = "\(number) \(result.selected.title)"
        switch result.outcome {
        case .pass: output.line("ok \(name)")
        case .skip: output.line("ok \(name) # SKIP \(result.reason ?? "")")
        case .fail: output.line("not ok \(name)")
        }
        if result.outcome == .fail, let reason = result.reason { note("failed: \(reason)") }
        result.detail.forEach(note)
    }

    func end(_ totals: Totals, seconds: Double, signal: Int32?) {
        if let signal { output.line("Bail out! stopped by \(SignalName.of(signal))") }
        note("Totals: pass:\(totals.pass) fail:\(totals.fail) xfail:0 xpass:0 skip:\(totals.skip) error:0")
    }
}
