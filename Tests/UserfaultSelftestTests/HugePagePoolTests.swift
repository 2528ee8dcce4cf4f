import Testing

@testable import UserfaultSelftest

/// The pool of huge pages while other programs use it too.
@Suite struct HugePagePoolTests {
    /// A pool from which another program takes pages whenever it has grown.
    private final class Pool {
        var total: Int
        var used: Int
        /// How many pages another program takes after each of the next changes.
        var taken: [Int]
        /// How many pages there is memory for.
        let most: Int
        private(set) var sizes: [Int] = []

        init(total: Int, used: Int, taken: [Int] = [], most: Int = 1000) {
            self.total = total
            self.used = used
            self.taken = taken
            self.most = most
        }

        func grow(free: Int) -> String? {
            HugePagePool.grow(free: free, counts: { (total: total, free: total - used) }) { size in
                sizes.append(size)
                total = min(size, most)
                if !taken.isEmpty { used = min(total, used + taken.removeFirst()) }
                return nil
            } compact: {
            }
        }
    }

    @Test func whatIsThereIsLeftAlone() {
        let pool = Pool(total: 40, used: 8)
        #expect(pool.grow(free: 32) == nil)
        #expect(pool.sizes.isEmpty)
    }

    @Test func aPageThatAnotherTakesMeanwhileIsMadeUpFor() {
        let pool = Pool(total: 0, used: 0, taken: [1, 2])
        #expect(pool.grow(free: 32) == nil)
        #expect(pool.sizes == [32, 33, 35])
    }

    @Test func growingEndsWithTheMemory() {
        let pool = Pool(total: 2, used: 2, most: 20)
        #expect(pool.grow(free: 32) == "only 18 of 32 huge pages could be had: free some memory")
        #expect(pool.sizes.count == 2)
    }

    @Test func growingEndsIfAnotherTakesEveryPage() {
        let pool = Pool(total: 0, used: 0, taken: Array(repeating: 1000, count: 1000), most: 100_000)
        #expect(pool.grow(free: 4) == "only 0 of 4 huge pages could be had: free some memory")
        #expect(pool.sizes.count == 8)
    }

    @Test func onlyWhatABusyPoolExplainsIsExcused() {
        let rows: [(HugePageUse, hasUsers: Bool, isLastTry: Bool, HugePageUse.Verdict)] = [
            // A page is lost, and nobody has it.
            (HugePageUse(free: (32, 31), total: (32, 32), needed: 32), false, false, .none),
            (HugePageUse(free: (32, 31), total: (32, 32), needed: 32), true, false, .perhaps),
            // As many are free again, but others were seen to take them.
            (HugePageUse(free: (32, 32), total: (32, 32), needed: 32, isBusy: true), false, false, .perhaps),
            (HugePageUse(free: (96, 3), total: (96, 96), needed: 32, isBusy: true), false, true, .perhaps),
            // Another program has made the pool smaller.
            (HugePageUse(free: (32, 8), total: (32, 8), needed: 32), false, false, .perhaps),
            (HugePageUse(free: (32, 8), total: (32, 8), needed: 32), false, true, .perhaps),
            // The last try began with three times as many.
            (HugePageUse(free: (96, 90), total: (96, 96), needed: 32), true, true, .enough),
            (HugePageUse(free: (96, 90), total: (96, 96), needed: 32), true, false, .perhaps),
            (HugePageUse(free: (96, 31), total: (96, 96), needed: 32), true, true, .perhaps),
        ]
        for (use, hasUsers, isLastTry, verdict) in rows {
            #expect(use.hasChanged)
            #expect(use.verdict(hasUsers: hasUsers, isLastTry: isLastTry) == verdict, "\(use)")
        }
    }
}
