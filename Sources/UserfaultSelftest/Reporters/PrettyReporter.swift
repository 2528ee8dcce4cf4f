/// For people: one line for each case with the memory types it ran on, what happens now on a terminal, and a summary
/// that lists the failures and groups the skips by reason.
final class PrettyReporter: Reporter {
    let output: ReportOutput
    private let hasColour: Bool
    private var planned = 0
    private var nameWidth = 0
    private var done = 0
    /// The results of the case that is running now.
    private var current: [CaseResult] = []
    private var failures: [CaseResult] = []
    private var skips: [Group] = []
    private var known: [Group] = []

    private typealias Group = (reason: String, results: [SelectedResult])

    init(output: ReportOutput) {
        self.output = output
        hasColour = Terminal.showsColour(on: output)
    }

    func begin(_ plan: Plan, on host: Host) {
        planned = plan.count
        nameWidth = plan.results.map(\.selftestCase.name.count).max() ?? 0
        output.line(styled(.bold, "uffd-selftest: \(plan.count) results on Linux \(host.kernel) \(host.machine)"))
        if let unusable = host.unusable {
            output.line(styled(.red, unusable))
        } else {
            output.line(styled(.dim, "userfaultfd: \(host.featureNames.joined(separator: " "))"))
        }
    }

    func note(_ line: String) {
        clearProgress()
        output.line(styled(.yellow, line))
    }

    func starting(_ result: SelectedResult) {
        showProgress("[\(done + 1)/\(planned)] \(result.title)")
    }

    func finished(_ result: CaseResult) {
        done += 1
        if let first = current.first?.selected,
            first.selftestCase.name != result.selected.selftestCase.name
                || first.iteration != result.selected.iteration
        {
            flush()
        }
        current.append(result)
        switch result.outcome {
        case .pass: break
        case .fail: failures.append(result)
        case .skip: Self.group(result, in: &skips)
        case .xfail: Self.group(result, in: &known)
        }
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        flush()
        clearProgress()
        if let stop { output.line(styled(.red, "stopped by \(stop)")) }
        for (index, failure) in failures.enumerated() {
            output.line("")
            output.line(styled(.red, "failure \(index + 1): \(failure.selected.title)"))
            output.line("  \(failure.reason ?? "")")
            failure.detail.forEach { output.line(styled(.dim, "    \($0)")) }
        }
        write(known, as: "failed")
        write(skips, as: "skipped")
        output.line("")
        let more =
            (totals.xfail > 0 ? ", \(totals.xfail) known failures" : "")
            + (totals.xpass > 0 ? ", \(totals.xpass) of the passed known to fail" : "")
        let counts = "\(totals.passed) passed, \(totals.fail) failed, \(totals.skip) skipped\(more)"
        output.line(
            styled(totals.fail > 0 ? .red : .green, counts) + " in \(Double(Int(seconds * 10)) / 10) s")
    }

    private func write(_ groups: [Group], as word: String) {
        if !groups.isEmpty { output.line("") }
        for group in groups {
            output.line(styled(.yellow, "\(word) (\(group.results.count)): \(group.reason)"))
            Self.titles(of: group.results).forEach { output.line(styled(.dim, "    \($0)")) }
        }
    }

    private static func group(_ result: CaseResult, in groups: inout [Group]) {
        let reason = result.reason ?? ""
        let index = groups.firstIndex { $0.reason == reason } ?? groups.endIndex
        if index == groups.endIndex { groups.append((reason, [])) }
        groups[index].results.append(result.selected)
    }

    /// One line for each case: `minor on shmem, tmpfs`.
    private static func titles(of results: [SelectedResult]) -> [String] {
        var lines: [(name: String, text: String)] = []
        for result in results {
            if let last = lines.last, last.name == result.selftestCase.name, result.iteration == nil,
                let memory = result.memory
            {
                lines[lines.count - 1].text += ", \(memory.rawValue)"
            } else {
                lines.append((result.selftestCase.name, result.title))
            }
        }
        return lines.map(\.text)
    }

    /// Prints the line of the case that has just been run on all its memory types.
    private func flush() {
        guard let first = current.first else { return }
        clearProgress()
        let worst =
            [CaseResult.Outcome.fail, .xfail, .pass].first { outcome in current.contains { $0.outcome == outcome } }
            ?? .skip
        let name = first.selected.selftestCase.name
        let padding = String(repeating: " ", count: max(0, nameWidth - name.count))
        let run = first.selected.iteration.map { "  (run \($0.number) of \($0.of))" } ?? ""
        output.line("\(mark(worst)) \(name)\(padding)  \(types(indent: nameWidth + 8))\(run)")
        current = []
    }

    /// The memory types that the case ran on, in as many lines as the terminal needs.
    private func types(indent: Int) -> String {
        let width = output.terminalWidth ?? .max
        var lines: [[String]] = [[]]
        var column = indent
        for result in current {
            guard let type = result.selected.memory?.rawValue else { continue }
            let length = type.count + 3
            if column + length > width, column > indent {
                lines.append([])
                column = indent
            }
            switch result.outcome {
            case .pass: lines[lines.count - 1].append(type)
            case .fail: lines[lines.count - 1].append(styled(.red, "\(type)!"))
            case .xfail: lines[lines.count - 1].append(styled(.yellow, "\(type)?"))
            case .skip: lines[lines.count - 1].append(styled(.dim, "(\(type))"))
            }
            column += length
        }
        return lines.map { $0.joined(separator: " ") }.joined(separator: "\n" + String(repeating: " ", count: indent))
    }

    private func mark(_ outcome: CaseResult.Outcome) -> String {
        switch outcome {
        case .pass: styled(.green, "ok   ")
        case .fail: styled(.red, "FAIL ")
        case .skip: styled(.yellow, "skip ")
        case .xfail: styled(.yellow, "xfail")
        }
    }

    private func styled(_ style: Terminal.Style, _ text: String) -> String {
        hasColour ? style(text) : text
    }

    private func showProgress(_ text: String) {
        guard let width = output.terminalWidth else { return }
        output.write(Terminal.eraseLine + text.prefix(width - 1))
    }

    private func clearProgress() {
        if output.terminalWidth != nil { output.write(Terminal.eraseLine) }
    }
}
