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

/// The report for spreadsheets: a line for each variant.
struct CSVReport {
    private let report: Report

    init(_ report: Report) {
        self.report = report
    }

    var text: String {
        var lines = [
            "scenario,variant,unit,median_ns,min_ns,max_ns,ratio,ratio_low,ratio_high,p50_ns,p99_ns,p999_ns,max_latency_ns"
        ]
        for scenario in report.scenarios {
            for variant in scenario.variants {
                let series = variant.nanoseconds
                // No name has a quote in it, and some have a comma.
                let names = [scenario.name, variant.name, scenario.unit.rawValue].map { "\"\($0)\"" }
                let ratio = variant.ratio.map { [$0.median, $0.lower, $0.upper].map { "\($0)" } } ?? ["", "", ""]
                let latency =
                    variant.latency.map { [$0.p50, $0.p99, $0.p999, $0.maximum].map { "\($0)" } } ?? ["", "", "", ""]
                let times = [series.median, series.minimum, series.maximum].map { "\($0)" }
                lines.append((names + times + ratio + latency).joined(separator: ","))
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
