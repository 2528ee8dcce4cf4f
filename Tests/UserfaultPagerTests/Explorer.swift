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
        let region = RegionReference(
            try RegionRecord(
                id: 1, count: scenario.pages * ModelKernel.pageBytes, options: RegionOptions(readAhead: .none)))
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
        try model.checkEnd(region)
    }
}

/// A program that never ends, with steps in an order that only the seed decides.
struct RandomRun {
    private static let pages = 24
    private static let spare = 8

    private var generator: SplitMix
    private let defect: ModelHandler.Defect?

    init(seed: UInt64, defect: ModelHandler.Defect?) {
        generator = SplitMix(state: seed)
        self.defect = defect
    }

    /// What went wrong within so many steps, or at the end of what was begun then.
    consuming func violation(after steps: Int) throws -> (any Error)? {
        var done = 0
        while done < steps {
            if let violation = try round(steps: 2000) { return violation }
            done += 2000
        }
        return nil
    }

    /// A fresh program each time: most pages of an old one are there or gone.
    private mutating func round(steps: Int) throws -> (any Error)? {
        let scenario = Model.Scenario(
            pages: Self.pages, spare: Self.spare, touchers: Array(repeating: [], count: 5),
            authors: [[], []], handlers: 3, readAhead: 3, readLimit: 1 + generator.below(6))
        let region = RegionReference(
            try RegionRecord(
                id: 1, count: Self.pages * ModelKernel.pageBytes, options: RegionOptions(readAhead: .none)))
        defer { unsafe region.destroy() }
        var model = try Model(scenario, region, defect)
        var moves = 0
        do {
            for _ in 0..<steps {
                let toucher = generator.below(5)
                if !model.isBusy(toucher: toucher) {
                    model.give(toucher: toucher, generator.below(Self.pages + Self.spare))
                }
                if generator.below(40) == 0 { change(&model, &moves) }
                let ready = model.ready()
                guard !ready.isEmpty else { break }
                try model.step(ready[generator.below(ready.count)])
            }
            while case let ready = model.ready(), !ready.isEmpty {
                try model.step(ready[generator.below(ready.count)])
            }
            try model.checkEnd(region)
            return nil
        } catch {
            return error
        }
    }

    private mutating func change(_ model: inout Model, _ moves: inout Int) {
        let author = generator.below(2)
        guard !model.isBusy(author: author) else { return }
        let first = generator.below(Self.pages - 4)
        let pages = first..<first + 1 + generator.below(4)
        switch generator.below(12) {
        case 8...: model.give(author: author, .appear(page: generator.below(Self.pages)))
        case 0 where moves * 4 + 4 <= Self.spare:
            // A target is used once, so that nothing is mapped there.
            model.give(
                author: author,
                .move(
                    pages: first..<first + 4, to: Self.pages + moves * 4, keepsOld: generator.below(2) == 0))
            moves += 1
        case 1: model.give(author: author, .unmap(pages: pages))
        default: model.give(author: author, .remove(pages: pages))
        }
    }
}

/// Random numbers that a seed decides.
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
}
