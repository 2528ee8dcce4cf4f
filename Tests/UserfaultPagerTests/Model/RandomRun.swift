import UserfaultFD

@testable import UserfaultPager

/// Decides what comes next where anything may.
protocol Chooser {
    /// A number from 0 up to, and without, a limit.
    mutating func below(_ limit: Int) -> Int

    /// Whether every further number is the same.
    var isAtItsEnd: Bool { get }
}

/// A program without an end, whose changes and whose order of steps somebody else decides.
struct RandomRun<Choices: Chooser> {
    private let pages = 24
    private let spare = 8

    private var choices: Choices
    private let defect: ModelHandler.Defect?

    init(_ choices: Choices, defect: ModelHandler.Defect? = nil) {
        self.choices = choices
        self.defect = defect
    }

    /// What went wrong within so many steps, or at the end of what was begun then.
    consuming func violation(after steps: Int) throws -> (any Error)? {
        var done = 0
        while done < steps, !choices.isAtItsEnd {
            if let violation = try round(steps: 2000) { return violation }
            done += 2000
        }
        return nil
    }

    /// A fresh program each time: most pages of an old one are there or gone.
    private mutating func round(steps: Int) throws -> (any Error)? {
        let scenario = Model.Scenario(
            pages: pages, spare: spare, touchers: Array(repeating: [], count: 5),
            authors: [[], []], handlers: 3, readAhead: 3,
            holes: [choices.below(pages), choices.below(pages), pages - 1], readLimit: 1 + choices.below(6),
            isAsynchronous: choices.below(2) == 0, expires: choices.below(2) == 0, populates: choices.below(4) == 0)
        let region = try Model.region(of: scenario)
        defer { unsafe region.destroy() }
        var model = try Model(scenario, region, defect)
        var moves = 0
        var hasForked = false
        do {
            for _ in 0..<steps where !choices.isAtItsEnd {
                let toucher = choices.below(5)
                if !model.isBusy(toucher: toucher) {
                    model.give(toucher: toucher, choices.below(pages + spare))
                }
                if choices.below(40) == 0 { change(&model, &moves, &hasForked) }
                let ready = model.ready()
                guard !ready.isEmpty else { break }
                try model.step(ready[choices.below(ready.count)])
            }
            // When nobody decides any more, everybody has his turn.
            var turn = 0
            while case let ready = model.ready(), !ready.isEmpty {
                turn += 1
                try model.step(ready[choices.isAtItsEnd ? turn % ready.count : choices.below(ready.count)])
            }
            try model.checkEnd()
            return nil
        } catch {
            return error
        }
    }

    private mutating func change(_ model: inout Model, _ moves: inout Int, _ hasForked: inout Bool) {
        let author = choices.below(2)
        guard !model.isBusy(author: author) else { return }
        let first = choices.below(pages - 4)
        let changed = first..<first + 1 + choices.below(4)
        switch choices.below(14) {
        case 13 where !hasForked:
            hasForked = true
            model.give(author: author, .fork(childReads: (0..<8).map { _ in choices.below(pages) }))
        case 12 where choices.below(4) == 0: model.give(author: author, .end)
        case 8...: model.give(author: author, .appear(page: choices.below(pages)))
        case 0 where moves * 4 + 4 <= spare:
            // A target is used once, so that nothing is mapped there.
            model.give(
                author: author,
                .move(
                    pages: first..<first + 4, to: pages + moves * 4, keepsOld: choices.below(2) == 0))
            moves += 1
        case 1: model.give(author: author, .unmap(pages: changed))
        default: model.give(author: author, .remove(pages: changed))
        }
    }
}

/// Random numbers that a seed decides.
struct SplitMix: Chooser {
    var state: UInt64
    var isAtItsEnd: Bool { false }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
}
