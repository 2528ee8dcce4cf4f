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
    private var skips: [(reason: String, results: [SelectedResult])] = []

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
        if let first = current.first, first.selected.selftestCase.name != result.selftestCase.name { flush() }
        showProgress("[\(done + 1)/\(planned)] \(result.title)")
    }

    func finished(_ result: CaseResult) {
        done += 1
        current.append(result)
        switch result.outcome {
        case .pass: break
        case .fail: failures.append(result)
        case .skip: groupSkip(result)
        }
    }

    func end(_ totals: Totals, seconds: Double, signal: Int32?) {
        flush()
        clearProgress()
        if let signal { output.line(styled(.red, "stopped by \(SignalName.of(signal))")) }
        for (index, failure) in failures.enumerated() {
            output.line("")
            output.line(styled(.red, "failure \(index + 1): \(failure.selected.title)"))
            output.line("  \(failure.reason ?? "")")
            failure.detail.forEach { output.line(styled(.dim, "    \($0)")) }
        }
        if !skips.isEmpty { output.line("") }
        for skip in skips {
            output.line(styled(.yellow, "skipped (\(skip.results.count)): \(skip.reason)"))
            Self.titles(of: skip.results).forEach { output.line(styled(.dim, "    \($0)")) }
        }
        output.line("")
        let counts = "\(totals.pass) passed, \(totals.fail) failed, \(totals.skip) skipped"
        output.line(
            styled(totals.fail > 0 ? .red : .green, counts) + " in \(Double(Int(seconds * 10)) / 10) s")
    }

    private func groupSkip(_ result: CaseResult) {
        let reason = result.reason ?? ""
        let index = skips.firstIndex { $0.reason == reason } ?? skips.endIndex
        if index == skips.endIndex { skips.append((reason, [])) }
        skips[index].results.append(result.selected)
    }

    /// One line for each case: `minor on shmem, tmpfs`.
    private static func titles(of results: [SelectedResult]) -> [String] {
        var lines: [(name: String, text: String)] = []
        for result in results {
            if let last = lines.last, last.name == result.selftestCase.name, let memory = result.memory {
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
            current.contains { $0.outcome == .fail }
            ? CaseResult.Outcome.fail : current.allSatisfy { $0.outcome == .skip } ? .skip : .pass
        let name = first.selected.selftestCase.name
        let padding = String(repeating: " ", count: max(0, nameWidth - name.count))
        output.line("\(mark(worst)) \(name)\(padding)  \(types(indent: nameWidth + 7))")
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
            case .skip: lines[lines.count - 1].append(styled(.dim, "(\(type))"))
            }
            column += length
        }
        return lines.map { $0.joined(separator: " ") }.joined(separator: "\n" + String(repeating: " ", count: indent))
    }

    private func mark(_ outcome: CaseResult.Outcome) -> String {
        switch outcome {
        case .pass: styled(.green, "ok  ")
        case .fail: styled(.red, "FAIL")
        case .skip: styled(.yellow, "skip")
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
