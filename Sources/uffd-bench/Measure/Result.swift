import CBenchBaseline

/// What was measured of one scenario.
struct ScenarioResult: Codable {
    let name: String
    let unit: Scenario.Unit
    let variants: [VariantResult]
    /// Why it was not measured.
    let unavailable: String?
}

struct VariantResult: Codable {
    let name: String
    /// Nanoseconds for one unit.
    let nanoseconds: Series
    /// Against the C twin; missing for the twin itself and for reference lines.
    let ratio: Ratio?
    /// The largest ratio that was promised.
    let gate: Double?
    let latency: Latency?
    /// What each round gave, in the order of the rounds.
    let rounds: [Double]

    /// Whether the promise is kept: broken only where the whole interval lies above it.
    var keepsGate: Bool? {
        guard let gate, let ratio else { return nil }
        return ratio.lower <= gate
    }
}

/// Everything that a run reports.
struct Report: Codable {
    let machine: Machine
    let quick: Bool
    let scenarios: [ScenarioResult]
    /// What a reader must know before believing the numbers.
    let warnings: [String]
}

/// Measures scenarios, the variants of each in turn, so that what changes on the machine meets them all.
struct Measurement {
    let settings: Settings
    let progress: (String) -> Void

    func measure(_ scenario: Scenario) -> ScenarioResult {
        progress(scenario.name)
        do {
            let variants = try scenario.prepare(settings)
            var values = [[Double]](repeating: [], count: variants.count)
            var latencies = [[UInt32]](repeating: [], count: variants.count)
            // One round is for the caches, the page cache and the allocator, and is not counted.
            let start = cbb_now()
            var round = -1
            while settings.pace.allows(round: round, after: cbb_now() - start) {
                defer { round += 1 }
                for step in variants.indices {
                    let index = round & 1 == 0 ? step : variants.count - 1 - step
                    let sample = try variants[index].run()
                    guard round >= 0 else { continue }
                    values[index].append(sample.nanoseconds)
                    latencies[index] += sample.latencies
                }
            }
            let baseline = variants.firstIndex { $0.name == "c" }
            let results = variants.indices.map { index in
                let name = variants[index].name
                let isTwin = index != baseline && !name.hasPrefix("(")
                return VariantResult(
                    name: name, nanoseconds: Series(values[index]),
                    ratio: baseline.flatMap { isTwin ? Ratio(values[index], to: values[$0]) : nil },
                    gate: scenario.gates[name], latency: Latency(latencies[index]), rounds: values[index])
            }
            return ScenarioResult(name: scenario.name, unit: scenario.unit, variants: results, unavailable: nil)
        } catch {
            let reason = (error as? Unavailable)?.reason ?? "\(error)"
            return ScenarioResult(name: scenario.name, unit: scenario.unit, variants: [], unavailable: reason)
        }
    }
}
