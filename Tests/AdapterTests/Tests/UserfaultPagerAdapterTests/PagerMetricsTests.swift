import MetricsTestKit
import Testing
import UserfaultFD
import UserfaultPager
import UserfaultPagerMetrics

@Suite(.timeLimit(.minutes(5)))
struct PagerMetricsTests {
    @Test
    func countersGrowByWhatWasDoneSinceTheSnapshotBefore() throws {
        let memory = try Mapping(anonymous: 6 * 4096)
        let pager = try Pager(UserfaultFD(), source: loadedZeros)
        let test = TestMetrics()
        let metrics = PagerMetrics(label: "p", dimensions: [("vm", "a")], factory: test)

        try pager.start()
        metrics.record(pager.statistics)
        let first = try pager.add(memory.range.part(at: 0, count: 4 * 4096))
        try pager.populate(first)
        metrics.record(pager.statistics)
        let second = try pager.add(memory.range.part(at: 4 * 4096, count: 2 * 4096))
        try pager.populate(second)
        metrics.record(pager.statistics)
        try pager.stop(.poison)

        let zeroed = try test.expectCounter("p_pages", [("vm", "a"), ("how", "zeroed")])
        #expect(zeroed.values == [4, 2])
        #expect(try test.expectCounter("p_bytes", [("vm", "a")]).totalValue == 6 * 4096)
        #expect(try test.expectCounter("p_faults", [("vm", "a"), ("kind", "missing")]).totalValue == 0)
        #expect(try test.expectMeter("p_outstanding", [("vm", "a")]).values == [0, 0, 0])
        let fills = try test.expectMeter(
            "p_latency_nanoseconds", [("vm", "a"), ("stage", "fill"), ("quantile", "0.5")])
        #expect(fills.values.count == 3)
        #expect(fills.values[0] == 0)
        #expect(fills.values[1] > 0)
    }

    @Test
    func followingRecordsALastTimeWhenItIsCancelled() async throws {
        let memory = try Mapping(anonymous: 4 * 4096)
        let pager = try Pager(UserfaultFD(), source: loadedZeros)
        let test = TestMetrics()
        let metrics = PagerMetrics(factory: test)
        try pager.add(memory.range)
        try pager.start()
        let follower = Task { try await metrics.follow(pager, every: .seconds(3600)) }
        while try test.expectMeter("userfaultfd_pager_queued").values.isEmpty {
            try Task.checkCancellation()
            await Task.yield()
        }
        try pager.populateAll()
        follower.cancel()
        await #expect(throws: CancellationError.self) { try await follower.value }
        #expect(try test.expectCounter("userfaultfd_pager_bytes").totalValue == 4 * 4096)
        try await pager.stop(.poison)
    }

    @Test
    func aHistogramOfAnIntervalHasWhatTheIntervalBrought() throws {
        let memory = try Mapping(anonymous: 4 * 4096)
        let pager = try Pager(UserfaultFD(), source: loadedZeros)
        try pager.add(memory.range)
        let before = pager.statistics.fill
        try pager.populateAll()
        let after = pager.statistics.fill
        #expect(after.subtracting(before) == after.subtracting(LatencyHistogram()))
        #expect(after.subtracting(before).count == after.count)
        #expect(after.subtracting(after) == LatencyHistogram())
        try pager.stop(.poison)
    }
}
