import Foundation
import Histogram

/// The values of one variant over all rounds.
struct Series: Codable {
    let median: Double
    let minimum: Double
    let maximum: Double
    /// How far apart the quartiles lie, in percent of the median: what the machine did to equal work.
    let spread: Double

    init(_ values: [Double]) {
        let sorted = values.sorted()
        median = sorted.median
        minimum = sorted.first ?? 0
        maximum = sorted.last ?? 0
        spread = median > 0 ? (sorted[sorted.count * 3 / 4] - sorted[sorted.count / 4]) / median * 100 : 0
    }
}

/// How two variants compare, round by round, which takes the machine's drift out.
struct Ratio {
    let rounds: Int
    let median: Double
    /// The 95 % confidence interval of the median, from the order of the rounds' ratios: no distribution is assumed.
    let lower: Double
    let upper: Double

    init(_ values: [Double], to baseline: [Double]) {
        let ratios = zip(values, baseline).map { $0 / $1 }.sorted()
        rounds = ratios.count
        median = ratios.median
        let skip = Self.rank(of: ratios.count)
        lower = ratios[skip]
        upper = ratios[ratios.count - 1 - skip]
    }

    /// How many values may lie outside on each side: the largest number whose binomial tail is at most 2.5 %.
    static func rank(of count: Int) -> Int {
        var probability = pow(0.5, Double(count))
        var tail = 0.0
        for below in 0..<max(1, count / 2) {
            tail += probability
            if tail > 0.025 { return max(0, below - 1) }
            probability *= Double(count - below) / Double(below + 1)
        }
        return max(0, count / 2 - 1)
    }
}

/// What the rounds say about a promise.
enum Verdict: String, Codable, CaseIterable {
    /// The whole interval keeps it.
    case holds
    /// The whole interval breaks it.
    case broken
    /// The interval lies on both sides, or is none: under 6 rounds.
    case cannotTell = "cannot tell"

    init(_ ratio: Ratio, _ quantity: Comparison.Quantity, bound: Double) {
        let (keeps, breaks) =
            switch quantity {
            case .time: (ratio.upper <= bound, ratio.lower > bound)
            case .rate: (ratio.lower >= bound, ratio.upper < bound)
            }
        self = ratio.rounds < Pace.quick.least ? .cannotTell : keeps ? .holds : breaks ? .broken : .cannotTell
    }
}

/// How long single faults took, over all rounds of a variant.
///
/// Nanoseconds.
struct Latency: Codable {
    let p50: UInt64
    let p99: UInt64
    let p999: UInt64
    let maximum: UInt64
    /// The distribution for a picture: the value below which each share of the faults lies.
    let quantiles: [Quantile]

    struct Quantile: Codable {
        let share: Double
        let nanoseconds: UInt64
    }

    init?(_ values: [UInt32]) {
        guard !values.isEmpty else { return nil }
        var histogram = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
        for value in values { histogram.record(UInt64(value)) }
        p50 = histogram.valueAtPercentile(50)
        p99 = histogram.valueAtPercentile(99)
        p999 = histogram.valueAtPercentile(99.9)
        maximum = histogram.max
        quantiles = [10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99].map {
            Quantile(share: $0 / 100, nanoseconds: histogram.valueAtPercentile($0))
        }
    }
}

extension [Double] {
    /// The middle of values that are sorted.
    var median: Double {
        guard !isEmpty else { return 0 }
        return count % 2 == 1 ? self[count / 2] : (self[count / 2 - 1] + self[count / 2]) / 2
    }
}
