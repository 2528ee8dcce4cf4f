import UserfaultFD

@testable import UserfaultPager

/// Runs a scenario in every order in which its actors can take their steps.
struct Explorer {
    struct Result {
        var runs = 0
        var isComplete = false
        var violation: (any Error)?
        /// The choices that led to the violation.
        var path: [Int] = []

        var description: String { "\(violation.map { "\($0)" } ?? "none") by the choices \(path)" }
    }

    private let scenario: Model.Scenario
    private let defect: ModelHandler.Defect?
    private let limit: Int

    init(_ scenario: Model.Scenario, defect: ModelHandler.Defect? = nil, limit: Int = 40_000) {
        self.scenario = scenario
        self.defect = defect
        self.limit = limit
    }

    func explore() throws -> Result {
        var result = Result()
        var path: [(choice: Int, of: Int)] = []
        let region = try Model.region(of: scenario)
        defer { unsafe region.destroy() }
        while result.runs < limit {
            result.runs += 1
            do {
                try run(&path, region)
            } catch {
                result.violation = error
                result.path = path.map(\.choice)
                return result
            }
            while let last = path.last, last.choice + 1 == last.of { path.removeLast() }
            guard !path.isEmpty else {
                result.isComplete = true
                return result
            }
            path[path.count - 1].choice += 1
        }
        return result
    }

    private func run(_ path: inout [(choice: Int, of: Int)], _ region: RegionReference) throws {
        for page in 0..<scenario.pages { region.states.update(page) { _ in [] } }
        var model = try Model(scenario, region, defect)
        var depth = 0
        while true {
            let ready = model.ready()
            guard !ready.isEmpty else { break }
            if depth == path.count { path.append((0, ready.count)) }
            try model.step(ready[path[depth].choice])
            depth += 1
        }
        try model.checkEnd()
    }
}
