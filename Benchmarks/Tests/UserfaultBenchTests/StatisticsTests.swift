import Testing

@testable import uffd_bench

@Suite struct StatisticsTests {
    @Test func theMedianIsTheMiddle() {
        #expect(Series([3, 1, 2]).median == 2)
        #expect(Series([4, 1, 2, 3]).median == 2.5)
        #expect(Series([]).median == 0)
    }

    /// Values from a table of the sign test: so many may be left out on each side for 95 %.
    @Test(arguments: [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (50, 17)])
    func theIntervalIsThatOfTheSignTest(count: Int, skipped: Int) {
        #expect(Ratio.rank(of: count) == skipped)
    }

    @Test func aRatioIsTakenRoundByRound() {
        // The machine became ten times as slow in the middle; the ratio did not change.
        let baseline = [10.0, 10, 10, 100, 100, 100]
        let ratio = Ratio(baseline.map { $0 * 1.5 }, to: baseline)
        #expect((ratio.median, ratio.lower, ratio.upper) == (1.5, 1.5, 1.5))
    }

    @Test(arguments: [
        ([1.0, 1.0, 1.01, 1.02, 1.02, 1.04], Verdict.holds), ([1.0, 1.0, 1.01, 1.02, 1.02, 1.06], .cannotTell),
        ([1.04, 1.1, 1.1, 1.1, 1.1, 1.1], .cannotTell), ([1.06, 1.1, 1.1, 1.1, 1.1, 1.1], .broken),
        ([1.0, 1.0, 1.0, 1.0, 1.0], .cannotTell),
    ])
    func aPromiseIsJudgedByTheWholeInterval(ratios: [Double], verdict: Verdict) {
        let ones = [Double](repeating: 1, count: ratios.count)
        #expect(Verdict(Ratio(ratios, to: ones), .time, bound: 1.05) == verdict)
    }

    @Test func ofRatesTheSmallestIsPromised() {
        let two = Ratio([2, 2, 2, 2, 2, 2], to: [1, 1, 1, 1, 1, 1])
        #expect(Verdict(two, .rate, bound: 2) == .holds)
        #expect(Verdict(two, .rate, bound: 3) == .broken)
    }

    @Test func whatIsShortIsMeasuredOften() {
        let pace = Pace(least: 6, usual: 10, most: 60, budget: 4_000_000_000)
        #expect(pace.allows(round: 5, after: .max))
        #expect(!pace.allows(round: 6, after: 20_000_000_000))
        #expect(pace.allows(round: 59, after: 3_999_999_999))
        #expect(!pace.allows(round: 60, after: 0))
    }
}
