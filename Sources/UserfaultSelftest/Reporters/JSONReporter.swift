import FoundationEssentials
import SystemPackage

/// One JSON document for the whole run, written when it is over.
final class JSONReporter: Reporter {
    private let output: ReportOutput
    private var document: Document?

    private struct Document: Encodable {
        let kernel: String
        let machine: String
        let features: [String]
        var results: [Result] = []
        var totals = Totals()
    }

    private struct Result: Encodable {
        enum Keys: String, CodingKey {
            case selftestCase = "case"
            case memory, outcome, reason, seconds, detail
        }

        let result: CaseResult

        func encode(to encoder: any Encoder) throws {
            // Every key is always there; what does not apply is null.
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(result.selected.selftestCase.name, forKey: .selftestCase)
            try container.encode(result.selected.memory, forKey: .memory)
            try container.encode(result.outcome, forKey: .outcome)
            try container.encode(result.reason, forKey: .reason)
            try container.encode(result.seconds, forKey: .seconds)
            try container.encode(result.detail.isEmpty ? nil : result.detail.joined(separator: "\n"), forKey: .detail)
        }
    }

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ planned: [SelectedResult], on host: Host) {
        document = Document(kernel: host.kernel, machine: host.machine, features: host.featureNames)
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        ReportOutput(.standardError).line("uffd-selftest: \(line)")
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        document?.results.append(Result(result: result))
    }

    func end(_ totals: Totals, seconds: Double, signal: Int32?) {
        document?.totals = totals
        if let signal { note("stopped by \(SignalName.of(signal))") }
        if let document { output.json(document) }
    }
}

extension ReportOutput {
    /// Writes `value` in a form that both people and programs can read.
    package func json(_ value: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { preconditionFailure("a report is always encodable") }
        line(String(decoding: data, as: UTF8.self))
    }
}
