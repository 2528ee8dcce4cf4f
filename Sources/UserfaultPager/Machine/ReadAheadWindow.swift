internal import Synchronization

/// How many pages to fill after a fault: more and more of them while faults are sequential.
///
/// Several readers may each go on at a place of their own. Several threads may ask at once; what one of them writes over
/// another's is a worse guess and nothing more.
struct ReadAheadWindow: ~Copyable {
    let maximum: Int
    private let streams = InlineArray<8, Stream> { _ in Stream() }
    /// Counts faults: which stream was met the longest ago.
    private let clock = Atomic<Int>(0)
    /// The stream of the last fault, which is mostly that of the next one.
    private let latest = Atomic<Int>(0)

    init(maximum: Int) {
        // No window is larger than all of memory, and twice as many pages are still a number.
        self.maximum = min(maximum, 1 << 52)
    }

    /// Counts a fault.
    ///
    /// - Parameter page: The number of the page in its source.
    /// - Returns: How many pages to fill after it.
    @inline(__always)
    func next(page: Int) -> Int {
        guard maximum > 0 else { return 0 }
        let now = clock.load(ordering: .relaxed) &+ 1
        clock.store(now, ordering: .relaxed)
        return streams[latest.load(ordering: .relaxed)].follow(page, maximum, now) ?? find(page, now)
    }

    @inline(never)
    private func find(_ page: Int, _ now: Int) -> Int {
        var oldest = 0
        var earliest = Int.max
        for index in streams.indices {
            if let window = streams[index].follow(page, maximum, now) {
                latest.store(index, ordering: .relaxed)
                return window
            }
            let met = streams[index].lastMet
            if met < earliest { (oldest, earliest) = (index, met) }
        }
        streams[oldest].begin(after: page, now)
        latest.store(oldest, ordering: .relaxed)
        return 0
    }

    /// A reader that goes on from page to page.
    private struct Stream: ~Copyable {
        private let pages = Atomic<Int>(0)
        private let expected = Atomic<Int>(.min / 2)
        private let met = Atomic<Int>(0)

        /// The first window, after two sequential faults.
        private static var initial: Int { 4 }

        var lastMet: Int { met.load(ordering: .relaxed) }

        func begin(after page: Int, _ now: Int) {
            pages.store(0, ordering: .relaxed)
            expected.store(page + 1, ordering: .relaxed)
            met.store(now, ordering: .relaxed)
        }

        /// - Returns: `nil` if the page is none of this reader's.
        @inline(__always)
        func follow(_ page: Int, _ maximum: Int, _ now: Int) -> Int? {
            let before = pages.load(ordering: .relaxed)
            let next = expected.load(ordering: .relaxed)
            // A page within the last window counts as well: threads that share the work reach it out of order.
            guard page >= next &- before, page <= next &+ 1 else { return nil }
            let window = min(maximum, max(Self.initial, before * 2))
            pages.store(window, ordering: .relaxed)
            expected.store(page + window + 1, ordering: .relaxed)
            met.store(now, ordering: .relaxed)
            return window
        }
    }
}
