/// What was measured of one scenario.
struct ScenarioResult: Codable {
    let name: String
    let unit: Scenario.Unit
    var variants: [VariantResult] = []
    /// Why it cannot be measured here.
    var unavailable: String?
    /// What went wrong.
    var failure: String?
}

struct VariantResult: Codable {
    let name: String
    /// Nanoseconds for one unit.
    let nanoseconds: Series
    /// Against the C twin and others; none for the twin itself and for reference lines.
    let comparisons: [ComparisonResult]
    let latency: Latency?
    /// The most memory by which the process grew, in bytes, where that was measured.
    let residentBytes: Int?
    /// What each round gave, in the order of the rounds: of a twin the geometric mean of its two turns.
    let rounds: [Double]
}

struct ComparisonResult: Codable {
    /// The variant it is compared with.
    let to: String
    let quantity: Comparison.Quantity
    let median: Double
    let lower: Double
    let upper: Double
    /// What was promised.
    let bound: Double?
    /// Whether a broken promise fails the run.
    let isGated: Bool
    let verdict: Verdict?

    init(_ comparison: Comparison, _ values: [Double], to baseline: [Double]) {
        let ratio =
            switch comparison.quantity {
            case .time: Ratio(values, to: baseline)
            case .rate: Ratio(baseline, to: values)
            }
        to = comparison.twin
        quantity = comparison.quantity
        (median, lower, upper) = (ratio.median, ratio.lower, ratio.upper)
        bound = comparison.bound
        isGated = comparison.isGated
        verdict = comparison.bound.map { Verdict(ratio, comparison.quantity, bound: $0) }
    }
}

/// Everything that a run reports.
struct Report: Codable {
    let machine: Machine
    let quick: Bool
    let scenarios: [ScenarioResult]
    /// What a reader must know before believing the numbers.
    let warnings: [String]
    /// How many of the gated promises are kept.
    let gated: Tally
    /// How many of those that are reported only.
    let reported: Tally

    init(machine: Machine, quick: Bool, scenarios: [ScenarioResult]) {
        self.machine = machine
        self.quick = quick
        self.scenarios = scenarios
        warnings = machine.warnings + Self.noise(of: scenarios)
        let promises = scenarios.flatMap(\.variants).flatMap(\.comparisons)
        gated = Tally(promises.filter(\.isGated))
        reported = Tally(promises.filter { !$0.isGated })
    }

    struct Tally: Codable {
        let holds: Int
        let broken: Int
        let cannotTell: Int

        init(_ comparisons: [ComparisonResult]) {
            holds = comparisons.count { $0.verdict == .holds }
            broken = comparisons.count { $0.verdict == .broken }
            cannotTell = comparisons.count { $0.verdict == .cannotTell }
        }

        var text: String { "\(holds) hold, \(broken) broken, \(cannotTell) undecided" }
    }

    /// The code that the process ends with.
    func exitCode(gates: Bool) -> Int32 {
        if scenarios.contains(where: { $0.failure != nil }) { return 2 }
        guard gates else { return 0 }
        return gated.broken > 0 ? 1 : gated.cannotTell > 0 ? 3 : 0
    }

    /// Judged where promises are: by how much the C twin's own rounds differ.
    private static func noise(of scenarios: [ScenarioResult]) -> [String] {
        let gated = scenarios.filter { $0.variants.contains { $0.comparisons.contains(where: \.isGated) } }
        let noisy = gated.filter { ($0.variants.first { $0.name == "c" }?.nanoseconds.spread ?? 0) > 20 }
        guard !noisy.isEmpty else { return [] }
        return [
            "in \(noisy.count) of \(gated.count) rows with a promise C's own rounds differ by more than 20 %: "
                + noisy.map(\.name).joined(separator: ", ")
        ]
    }
}
