import Glibc

extension String {
    /// The same without control characters, which a crashing case may print and no report should obey.
    fileprivate var printable: String {
        String(String.UnicodeScalarView(unicodeScalars.map { $0.value < 32 && $0 != "\n" && $0 != "\t" ? "?" : $0 }))
    }
}

extension CaseProcess.Ending {
    /// Whether somebody else has killed the process, as the kernel does when memory runs out.
    var wasKilled: Bool {
        if case .signaled(SIGKILL) = cause { true } else { false }
    }

    /// What the end of the process and its messages say together.
    func result(of selected: SelectedResult, limit: Duration) -> CaseResult {
        var result = CaseResult(selected: selected, seconds: seconds, detail: [])
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
        case (.exited(0), .skipped(let reason, let cause)):
            result.skip(reason, cause)
        case (.exited(0), .failed(let reason, let detail)):
            result.fail(reason, detail: detail)
        case (.exited(let code), _):
            result.fail("it ended with exit code \(code) and without a verdict", detail: [])
        }
        if strays.killed > 0 { result.detail.append("it left \(strays.killed) processes behind, which were killed") }
        if !strays.unkillable.isEmpty {
            result.fail(
                "it left processes behind that SIGKILL does not end",
                detail: strays.unkillable.flatMap(HangReport.lines(pid:)))
        }
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
