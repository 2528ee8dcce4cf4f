import Testing

@testable import UserfaultPager

@Suite
struct WaiterTests {
    /// How many of a number of waits look, where both ways take as long as is said.
    private func looks(of waits: Int, looking: UInt64, sleeping: UInt64, with waiter: inout Waiter) -> Int {
        var looks = 0
        for _ in 0..<waits {
            let budget = waiter.budget()
            if budget > 0 { looks += 1 }
            waiter.learn(budget > 0 ? looking : sleeping, budget: budget)
        }
        return looks
    }

    @Test
    func theWayIsTakenByWhichFaultsComeSooner() {
        var waiter = Waiter(.adaptive(), processors: 2)
        // What is found out again holds longer: 8 + 8 + 512, 8 + 8 + 1024, ...
        #expect(looks(of: 16_000, looking: 12_000, sleeping: 50_000, with: &waiter) == 16_000 - 7 * 8)
        // The handler shares the processor of who faults.
        #expect(looks(of: 16_000, looking: 15_000, sleeping: 11_000, with: &waiter) < Waiter.longestHold + 6 * 8)
        #expect(looks(of: 16_000, looking: 15_000, sleeping: 11_000, with: &waiter) <= 5 * 8)
        // Nobody faults: looking costs a processor, is no faster, and is soon given up.
        #expect(looks(of: 16_000, looking: 9_000_000, sleeping: 9_000_000, with: &waiter) <= 5 * 4)
        #expect(
            looks(of: 16_000, looking: 12_000, sleeping: 50_000, with: &waiter) > 16_000 - Waiter.longestHold - 6 * 8)
    }

    @Test
    func onlyAnAdaptiveWaiterWithProcessorsLearns() {
        var alone = Waiter(.adaptive(), processors: 1)
        #expect(looks(of: 2000, looking: 1, sleeping: 50_000, with: &alone) == 0)
        var spinning = Waiter(.spin, processors: 2)
        #expect(spinning.budget() > 1 << 60)
        var patient = Waiter(.adaptive(upTo: .seconds(Int64.max)), processors: 2)
        #expect(looks(of: 100, looking: UInt64.max / 2, sleeping: UInt64.max, with: &patient) > 0)
        var polling = Waiter(.poll, processors: 2)
        #expect(polling.budget() == 0)
    }
}
