import Foundation
import TextTable

/// The report for people: a table for each family of scenarios.
struct TableReport {
    private let report: Report

    init(_ report: Report) {
        self.report = report
    }

    /// One line of a table.
    private struct Row {
        let scenario: String
        let variant: String
        let time: String
        let spread: String
        let rate: String
        let ratio: String
        let tail: String
    }

    var text: String {
        let machine = report.machine
        var text = """
            Linux \(machine.kernel) \(machine.architecture), \(machine.processors) x \(machine.processorName), \
            load \(machine.load), noise \(Int(machine.noise)) %\(report.quick ? ", quick" : "")

            """
        for warning in report.warnings { text += "warning: \(warning)\n" }
        for family in families {
            text += "\n" + (table.string(for: family.rows, style: Style.pipe) ?? "") + "\n"
        }
        let missing = report.scenarios.filter { $0.unavailable != nil }
        if !missing.isEmpty {
            text += "\nnot measured:\n"
            for scenario in missing { text += "  \(scenario.name): \(scenario.unavailable ?? "")\n" }
        }
        let broken = report.scenarios.flatMap { scenario in
            scenario.variants.filter { $0.keepsGate == false }.map { "\(scenario.name) \($0.name)" }
        }
        text +=
            broken.isEmpty ? "\nevery promised ratio holds\n" : "\nbroken promises: \(broken.joined(separator: ", "))\n"
        return text
    }

    private var table: TextTable<Row> {
        TextTable<Row> { row in
            [
                Column(title: "scenario", value: row.scenario),
                Column(title: "variant", value: row.variant),
                Column(title: "median", value: row.time, align: .right),
                Column(title: "min .. max", value: row.spread, align: .right),
                Column(title: "rate", value: row.rate, align: .right),
                Column(title: "x C (95 %)", value: row.ratio, align: .right),
                Column(title: "p50 / p99 / p99.9 us", value: row.tail, align: .right),
            ]
        }
    }

    private var families: [(name: String, rows: [Row])] {
        var families: [(name: String, rows: [Row])] = []
        for scenario in report.scenarios where scenario.unavailable == nil {
            let name = String(scenario.name.prefix { $0 != "/" })
            if families.last?.name != name { families.append((name, [])) }
            for (index, variant) in scenario.variants.enumerated() {
                families[families.count - 1].rows.append(row(scenario, variant, isFirst: index == 0))
            }
        }
        return families
    }

    private func row(_ scenario: ScenarioResult, _ variant: VariantResult, isFirst: Bool) -> Row {
        let series = variant.nanoseconds
        return Row(
            scenario: isFirst ? scenario.name : "", variant: variant.name,
            time: "\(Self.number(series.median)) ns/\(scenario.unit.rawValue)",
            spread: "\(Self.number(series.minimum)) .. \(Self.number(series.maximum))",
            rate: Self.rate(series.median, scenario.unit), ratio: Self.ratio(variant),
            tail: variant.latency.map {
                [$0.p50, $0.p99, $0.p999].map { Self.number(Double($0) / 1000) }.joined(separator: " / ")
            } ?? "")
    }

    private static func ratio(_ variant: VariantResult) -> String {
        guard let ratio = variant.ratio else { return "" }
        let text = String(format: "%.3f (%.3f .. %.3f)", ratio.median, ratio.lower, ratio.upper)
        guard let keeps = variant.keepsGate, let gate = variant.gate else { return text }
        return text + String(format: keeps ? " <= %.2f" : " BREAKS %.2f", gate)
    }

    private static func rate(_ nanoseconds: Double, _ unit: Scenario.Unit) -> String {
        switch unit {
        case .kibibyte: String(format: "%.2f GiB/s", 1e9 / nanoseconds / Double(1 << 20))
        case .page: String(format: "%.2f GiB/s", 4096 * 1e9 / nanoseconds / Double(1 << 30))
        case .fault, .start: String(format: "%.0f /s", 1e9 / nanoseconds)
        }
    }

    private static func number(_ value: Double) -> String {
        String(format: value < 100 ? "%.1f" : "%.0f", value)
    }
}
