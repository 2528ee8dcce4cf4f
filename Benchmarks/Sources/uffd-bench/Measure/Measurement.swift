import CBenchBaseline

/// Measures scenarios, the variants of each in turn, so that what changes on the machine meets them all.
struct Measurement {
    let settings: Settings
    let progress: (String) -> Void

    /// What the rounds of one variant gave.
    private struct Rounds {
        var values: [Double] = []
        var latencies: [UInt32] = []
        var residentBytes: [Int] = []
    }

    func measure(_ scenario: Scenario) -> ScenarioResult {
        progress(scenario.name)
        var result = ScenarioResult(name: scenario.name, unit: scenario.unit)
        do {
            // What is not pinned on purpose runs where its twin runs.
            result.variants = try Processor.kept(on: Processor.all.first) {
                try Watchdog.watching(scenario.name, seconds: settings.isQuick ? 60 : 240) {
                    try variants(of: scenario)
                }
            }
        } catch let error as Unavailable {
            result.unavailable = error.reason
        } catch {
            result.failure = "\(error)"
        }
        return result
    }

    private func variants(of scenario: Scenario) throws -> [VariantResult] {
        let variants = try scenario.prepare(settings)
        var rounds = [Rounds](repeating: Rounds(), count: variants.count)
        let twins = variants.indices.filter { !variants[$0].isReference }
        // The first turn is for the caches and the allocators, and is not counted.
        for index in variants.indices { _ = try sample(variants[index]) }
        let start = cbb_now()
        var round = 0
        while !twins.isEmpty, settings.pace.allows(round: round, after: cbb_now() - start) {
            // There and back: each runs behind each of its neighbours equally often, and the drift cancels out.
            let there = try twins.map { try sample(variants[$0]) }
            let back = try twins.reversed().map { try sample(variants[$0]) }
            for (index, (first, second)) in zip(twins, zip(there, back.reversed())) {
                rounds[index].values.append((first.value * second.value).squareRoot())
                rounds[index].latencies += first.latencies + second.latencies
                rounds[index].residentBytes += [first, second].compactMap(\.residentBytes)
            }
            round += 1
        }
        for index in variants.indices where variants[index].isReference {
            rounds[index].values = try (0..<settings.pace.least).map { _ in try sample(variants[index]).value }
        }
        return try zip(variants, rounds).map { variant, own in
            VariantResult(
                name: variant.name, nanoseconds: Series(own.values),
                comparisons: try variant.comparisons.map { comparison in
                    guard let twin = variants.firstIndex(where: { $0.name == comparison.twin }) else {
                        throw Mismeasured(description: "there is no variant \(comparison.twin) to compare with")
                    }
                    return ComparisonResult(comparison, own.values, to: rounds[twin].values)
                },
                latency: Latency(own.latencies), residentBytes: own.residentBytes.max(), rounds: own.values)
        }
    }

    /// Runs a variant until enough time was measured; what it prepares is not.
    private func sample(_ variant: Variant) throws -> Sample {
        try Memory.warmHost()
        var sample = try variant.run()
        while !variant.isOnce, sample.nanoseconds < settings.sampleTime { sample.add(try variant.run()) }
        return sample
    }
}
