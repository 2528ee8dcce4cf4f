import Foundation

/// The report for programs.
struct JSONReport {
    private let report: Report

    init(_ report: Report) {
        self.report = report
    }

    var text: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(report), as: UTF8.self) + "\n"
        }
    }
}

/// The report for spreadsheets: a line for each variant, and for each further comparison.
struct CSVReport {
    private let report: Report

    init(_ report: Report) {
        self.report = report
    }

    private static let head = [
        "scenario", "variant", "unit", "median_ns", "min_ns", "max_ns", "p50_ns", "p99_ns", "p999_ns", "max_latency_ns",
        "resident_bytes", "compared_with", "quantity", "ratio", "ratio_low", "ratio_high", "promised", "gated",
        "verdict",
    ]

    var text: String {
        var lines = [Self.head.joined(separator: ",")]
        for scenario in report.scenarios {
            for variant in scenario.variants {
                let series = variant.nanoseconds
                let names = [scenario.name, variant.name, scenario.unit.rawValue].map(Self.quoted)
                let latency = variant.latency.map { [$0.p50, $0.p99, $0.p999, $0.maximum].map { "\($0)" } }
                let times = [series.median, series.minimum, series.maximum].map { "\($0)" }
                let resident = variant.residentBytes.map { "\($0)" } ?? ""
                let start = names + times + (latency ?? ["", "", "", ""]) + [resident]
                let none = [String](repeating: "", count: Self.head.count - start.count)
                let comparisons = variant.comparisons.isEmpty ? [none] : variant.comparisons.map(Self.fields)
                for comparison in comparisons { lines.append((start + comparison).joined(separator: ",")) }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func fields(_ comparison: ComparisonResult) -> [String] {
        [
            quoted(comparison.to), comparison.quantity.rawValue, "\(comparison.median)", "\(comparison.lower)",
            "\(comparison.upper)", comparison.bound.map { "\($0)" } ?? "", "\(comparison.isGated)",
            comparison.verdict?.rawValue ?? "",
        ]
    }

    /// Some names have a comma in them; none has a quote.
    private static func quoted(_ name: String) -> String { "\"\(name)\"" }
}
