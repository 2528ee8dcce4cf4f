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
        var text = heading
        for warning in report.warnings { text += "warning: \(warning)\n" }
        for family in families {
            text += "\n" + (table.string(for: family.rows, style: Style.pipe) ?? "") + "\n"
        }
        text += list("not measured", report.scenarios) { $0.unavailable }
        text += list("FAILED", report.scenarios) { $0.failure }
        text += "\ngated promises: \(report.gated.text)\n"
        text += promises { $0.isGated && $0.verdict != .holds }
        text += "promises across processors, reported and not gated: \(report.reported.text)\n"
        text += promises { !$0.isGated && $0.verdict == .broken }
        return text
    }

    private var heading: String {
        let machine = report.machine
        func load(_ value: Double?) -> String { value.map { "\($0)" } ?? "unknown" }
        let reporting = machine.pageReportingOrder.map { ", free memory reported to the host from order \($0)" } ?? ""
        return """
            Linux \(machine.kernel) \(machine.architecture), \(machine.processors) x \(machine.processorName)\
            \(machine.isVirtual ? ", virtual" : "")\(report.quick ? ", quick" : "")
            \(machine.pinning); clock \(machine.clockSource), huge pages \(machine.transparentHugePages)\(reporting)
            load \(load(machine.loadBefore)) before, \(load(machine.loadAfter)) after the run

            """
    }

    private func list(
        _ title: String, _ scenarios: [ScenarioResult], _ reason: (ScenarioResult) -> String?
    ) -> String {
        let lines = scenarios.compactMap { scenario in reason(scenario).map { "  \(scenario.name): \($0)\n" } }
        return lines.isEmpty ? "" : "\n\(title):\n" + lines.joined()
    }

    private func promises(_ isShown: (ComparisonResult) -> Bool) -> String {
        var text = ""
        for scenario in report.scenarios {
            for variant in scenario.variants {
                for comparison in variant.comparisons where isShown(comparison) {
                    text += "  \(scenario.name) \(variant.name): \(Self.text(comparison))\n"
                }
            }
        }
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
        for scenario in report.scenarios where !scenario.variants.isEmpty {
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
            rate: Self.rate(series.median, scenario.unit)
                + (variant.residentBytes.map { String(format: ", %.1f MiB", Double($0) / Double(1 << 20)) } ?? ""),
            ratio: variant.comparisons.map(Self.text).joined(separator: "; "),
            tail: variant.latency.map {
                [$0.p50, $0.p99, $0.p999].map { Self.number(Double($0) / 1000) }.joined(separator: " / ")
            } ?? "")
    }

    /// A ratio, its interval, what was promised and what became of it.
    private static func text(_ comparison: ComparisonResult) -> String {
        var text = String(format: "%.3f (%.3f .. %.3f)", comparison.median, comparison.lower, comparison.upper)
        switch (comparison.quantity, comparison.to) {
        case (.time, "c"): break
        case (.time, let twin): text += " of \(twin)"
        case (.rate, let twin): text += " x the faults per second of \(twin)"
        }
        guard let bound = comparison.bound, let verdict = comparison.verdict else { return text }
        let relation = comparison.quantity == .time ? "<=" : ">="
        return text + String(format: " \(relation) %.2f ", bound) + verdict.rawValue.uppercased()
    }

    private static func rate(_ nanoseconds: Double, _ unit: Scenario.Unit) -> String {
        switch unit {
        case .kibibyte: String(format: "%.2f GiB/s", 1e9 / nanoseconds / Double(1 << 20))
        case .page: String(format: "%.2f GiB/s", 4096 * 1e9 / nanoseconds / Double(1 << 30))
        case .hugePage: String(format: "%.2f GiB/s", 1e9 / nanoseconds / 512)
        case .fault, .start: String(format: "%.0f /s", 1e9 / nanoseconds)
        }
    }

    private static func number(_ value: Double) -> String {
        String(format: value < 100 ? "%.1f" : "%.0f", value)
    }
}
