import FoundationEssentials
import SystemPackage

/// One JSON document for the whole run, written when it is over.
final class JSONReporter: Reporter {
    let output: ReportOutput
    private var document: Document?

    private struct Document: Encodable {
        enum CodingKeys: CodingKey {
            case kernel, machine, features, planned, interrupted, notes, results, totals
        }

        let kernel: String
        let machine: String
        let features: [String]
        /// How many results the run was to have.
        let planned: Int
        /// The signal that stopped the run before it had them.
        var interrupted: String?
        var notes: [String] = []
        var results: [Result] = []
        var totals = Totals()

        func encode(to encoder: any Encoder) throws {
            // Every key is always there; what does not apply is null.
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(kernel, forKey: .kernel)
            try container.encode(machine, forKey: .machine)
            try container.encode(features, forKey: .features)
            try container.encode(planned, forKey: .planned)
            try container.encode(interrupted, forKey: .interrupted)
            try container.encode(notes, forKey: .notes)
            try container.encode(results, forKey: .results)
            try container.encode(totals, forKey: .totals)
        }
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

    func begin(_ plan: Plan, on host: Host) {
        document = Document(
            kernel: host.kernel, machine: host.machine, features: host.featureNames, planned: plan.count)
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        document?.notes.append(line)
        ReportOutput(.standardError).line("uffd-selftest: \(line)")
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        document?.results.append(Result(result: result))
    }

    func end(_ totals: Totals, seconds: Double, signal: Int32?) {
        document?.totals = totals
        document?.interrupted = signal.map(SignalName.of)
        if let signal { note("stopped by \(SignalName.of(signal)) before all was done") }
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
