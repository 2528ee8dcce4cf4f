import Testing

@testable import uffd_bench

@Suite struct MeasurementTests {
    private let measurement = Measurement(settings: Settings(pace: .exactly(6), isQuick: true)) { _ in }

    /// Says which variant ran, and that it took long enough.
    private final class Log {
        var names: [String] = []

        func variant(_ name: String, _ comparisons: Comparison..., nanoseconds: UInt64) -> Variant {
            Variant(name: name, comparisons: comparisons) { [self] in
                names.append(name)
                return Sample(nanoseconds, units: 1, residentBytes: names.count << 20)
            }
        }
    }

    @Test func turnsGoThereAndBackAndReferencesComeLast() {
        let log = Log()
        _ = measurement.measure(
            Scenario("a", .page) { _ in
                [
                    log.variant("c", nanoseconds: 10_000_000), log.variant("(other)", nanoseconds: 10_000_000),
                    log.variant("swift", .time(), nanoseconds: 10_000_000),
                ]
            })
        // The first turn is not counted.
        #expect(log.names.dropFirst(3).prefix(8) == ["c", "swift", "swift", "c", "c", "swift", "swift", "c"])
        #expect(log.names.suffix(6).allSatisfy { $0 == "(other)" })
        #expect(log.names.count == 3 + 6 * 4 + 6)
    }

    @Test func aValueIsMeasuredUntilItIsLongEnough() {
        let log = Log()
        let result = measurement.measure(Scenario("a", .page) { _ in [log.variant("c", nanoseconds: 2_000_000)] })
        // Three times for 5 ms, in 13 samples.
        #expect(log.names.count == 3 * 13)
        #expect(result.variants.first?.nanoseconds.median == 2_000_000)
    }

    @Test func aBrokenPromiseAndAnErrorEndTheRunDifferently() {
        let broken = measurement.measure(
            Scenario("a", .page) { _ in
                let log = Log()
                return [
                    log.variant("c", nanoseconds: 10_000_000),
                    log.variant("swift", .time(atMost: 1.05), nanoseconds: 11_000_000),
                ]
            })
        let failed = measurement.measure(Scenario("b", .page) { _ in throw Mismeasured(description: "wrong") })
        let lacking = measurement.measure(Scenario("c", .page) { _ in throw Unavailable(reason: "no such kernel") })
        func code(_ results: [ScenarioResult], gates: Bool = true) -> Int32 {
            Report(machine: Machine(), quick: true, scenarios: results).exitCode(gates: gates)
        }
        #expect(code([broken]) == 1)
        #expect(code([broken], gates: false) == 0)
        #expect(code([broken, failed], gates: false) == 2)
        #expect(code([lacking]) == 0)
        #expect(failed.failure == "wrong" && lacking.unavailable == "no such kernel")
    }

    @Test func everyLineOfTheCSVHasEveryField() throws {
        let log = Log()
        let result = measurement.measure(
            Scenario("a", .page) { _ in
                [
                    log.variant("c", nanoseconds: 10_000_000),
                    log.variant("pager", .time(), .rate(of: "c", atLeast: 3), nanoseconds: 10_000_000),
                ]
            })
        let report = Report(machine: Machine(), quick: true, scenarios: [result])
        let lines = CSVReport(report).text.split(separator: "\n")
        #expect(lines.count == 4)
        #expect(Set(lines.map { $0.split(separator: ",", omittingEmptySubsequences: false).count }) == [19])
        #expect(try JSONReport(report).text.contains("\"verdict\" : \"broken\""))
        // The most of all turns: the last one of C was the last of all.
        #expect(result.variants.map(\.residentBytes) == [26 << 20, 25 << 20])
        #expect(TableReport(report).text.contains("gated promises: 0 hold, 1 broken, 0 undecided"))
    }
}
