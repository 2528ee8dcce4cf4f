/// The results of a run in their order, each as often as the run is repeated.
package struct Plan {
    package let results: [SelectedResult]
    package let repetitions: Int
    /// The seed of an order by chance; nil for the usual order.
    package let seed: Int?

    package init(results: [SelectedResult], repetitions: Int = 1, seed: Int? = nil) {
        self.results = results
        self.repetitions = repetitions
        self.seed = seed
    }

    package var count: Int { results.count * repetitions }

    /// The results of one repetition, counted from 1.
    func iteration(_ number: Int) -> [SelectedResult] {
        var results = results
        if let seed {
            // The results of a case stay together: a report has them on one line.
            var generator = SeededGenerator(seed: seed &+ number)
            let cases = Dictionary(grouping: results, by: \.selftestCase.name)
            results = cases.keys.sorted().shuffled(using: &generator).flatMap {
                cases[$0]!.shuffled(using: &generator)
            }
        }
        guard repetitions > 1 else { return results }
        return results.map { result in
            var result = result
            result.iteration = SelectedResult.Iteration(number: number, of: repetitions)
            return result
        }
    }
}

/// What is still to do of a plan.
struct Schedule {
    private let plan: Plan
    private var iteration = 1
    private var upcoming: ArraySlice<SelectedResult>

    init(_ plan: Plan) {
        self.plan = plan
        upcoming = plan.iteration(1)[...]
    }

    /// The next result; nil at the end.
    var first: SelectedResult? { upcoming.first }

    mutating func removeFirst() {
        upcoming.removeFirst()
        guard upcoming.isEmpty, iteration < plan.repetitions else { return }
        iteration += 1
        upcoming = plan.iteration(iteration)[...]
    }
}
