import FoundationEssentials
import SystemPackage

/// One JSON document for the whole run, a result a line.
final class JSONReporter: Reporter {
    let output: ReportOutput
    private var stream: JSONStream?
    private var tail = Tail()

    private struct Head: Encodable {
        let selftest: String
        let kernel: String
        let machine: String
        let features: [String]
        let host: [String: String]
        /// How many results the run was to have.
        let planned: Int
    }

    private struct Tail: Encodable {
        enum Keys: CodingKey {
            case interrupted, notes, totals
        }

        /// What stopped the run before it had all results.
        var interrupted: String? = "the report was not finished"
        var notes: [String] = []
        var totals = Totals()

        func encode(to encoder: any Encoder) throws {
            // Every key is always there; what does not apply is null.
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(interrupted, forKey: .interrupted)
            try container.encode(notes, forKey: .notes)
            try container.encode(totals, forKey: .totals)
        }
    }

    private struct Result: Encodable {
        enum Keys: String, CodingKey {
            case selftestCase = "case"
            case memory, run, outcome, reason, cause, seconds, detail
        }

        let result: CaseResult

        func encode(to encoder: any Encoder) throws {
            // Every key is always there; what does not apply is null.
            var container = encoder.container(keyedBy: Keys.self)
            try container.encode(result.selected.selftestCase.name, forKey: .selftestCase)
            try container.encode(result.selected.memory, forKey: .memory)
            try container.encode(result.selected.iteration?.number ?? 1, forKey: .run)
            try container.encode(result.outcome, forKey: .outcome)
            try container.encode(result.reason, forKey: .reason)
            try container.encode(result.cause, forKey: .cause)
            try container.encode(result.seconds, forKey: .seconds)
            try container.encode(result.detail.isEmpty ? nil : result.detail.joined(separator: "\n"), forKey: .detail)
        }
    }

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        let head = Head(
            selftest: Version.text, kernel: host.kernel, machine: host.machine, features: host.featureNames,
            host: Dictionary(uniqueKeysWithValues: host.facts.map { ($0.name, $0.value) }), planned: plan.count)
        stream = JSONStream(output, head: head, array: "results", tail: tail)
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        tail.notes.append(line)
        ReportOutput(.standardError).line("uffd-selftest: \(line)")
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        tail.totals.count(result)
        stream?.append(Result(result: result), tail: tail)
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        tail.totals = totals
        tail.interrupted = stop?.description
        if let stop { note("stopped by \(stop) before all was done") }
        stream?.end(tail: tail)
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
