import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.timeLimit(.minutes(5)))
struct StateMachineTests {
    static let scenarios: [(name: String, Model.Scenario)] = [
        ("two threads on one page", .init(pages: 1, touchers: [[0], [0]], handlers: 2)),
        ("two pages, read ahead", .init(touchers: [[0, 1], [1]], handlers: 2, readAhead: 1)),
        ("read against remove", .init(touchers: [[0, 1]], authors: [[.remove(pages: 0..<2)]], handlers: 2)),
        (
            "read ahead against remove",
            .init(touchers: [[0, 1]], authors: [[.remove(pages: 1..<2)]], handlers: 1, readAhead: 1)
        ),
        (
            "removed while another reads",
            .init(pages: 1, touchers: [[0], [0]], authors: [[.remove(pages: 0..<1)]], handlers: 1)
        ),
        ("read against unmap", .init(touchers: [[0, 1]], authors: [[.unmap(pages: 1..<2)]], handlers: 2)),
        (
            "read against a move",
            .init(
                pages: 1, spare: 1, touchers: [[0, 1]],
                authors: [[.move(pages: 0..<1, to: 1, keepsOld: false)]], handlers: 2)
        ),
        (
            "a move that leaves its range",
            .init(
                pages: 1, spare: 1, touchers: [[0, 1, 0]],
                authors: [[.move(pages: 0..<1, to: 1, keepsOld: true)]], handlers: 1)
        ),
        (
            "one message at a time",
            .init(pages: 1, touchers: [[0], [0]], authors: [[.remove(pages: 0..<1)]], handlers: 1, readLimit: 1)
        ),
    ]

    @Test(arguments: scenarios.indices)
    func everyInterleavingOf(scenario index: Int) throws {
        let explored = try Explorer(Self.scenarios[index].1).explore()
        #expect(explored.isComplete, "\(Self.scenarios[index].name): more than \(explored.runs) interleavings")
        #expect(explored.violation == nil, "\(Self.scenarios[index].name): \(explored.description)")
    }

    /// What the interleavings are worth: each of these engines, wrong in one line, is caught by one of them.
    @Test(arguments: ModelHandler.Defect.allCases)
    func someInterleavingCatches(_ defect: ModelHandler.Defect) throws {
        let caught = try Self.scenarios.contains { _, scenario in
            try Explorer(scenario, defect: defect, limit: 2000).explore().violation != nil
        }
        #expect(caught)
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func millionsOfRandomSteps(seed: UInt64) throws {
        let violation = try RandomRun(seed: seed, defect: nil).violation(after: 400_000)
        #expect(violation == nil)
    }

    @Test(arguments: ModelHandler.Defect.allCases)
    func randomStepsCatch(_ defect: ModelHandler.Defect) throws {
        let caught = try (1...5).contains { seed in
            try RandomRun(seed: seed, defect: defect).violation(after: 100_000) != nil
        }
        #expect(caught)
    }
}
