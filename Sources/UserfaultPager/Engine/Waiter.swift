internal import CUserfaultFD

/// Decides for one thread how long it looks for the next fault before it sleeps.
///
/// Looking pays where the thread whose faults it serves runs on another processor, and not where it keeps that thread
/// from running. Nobody tells which it is, so both ways are tried, and the one is taken by which faults come sooner.
struct Waiter {
    private let limit: UInt64
    /// Whether it learns.
    let isAdaptive: Bool
    private var looking = Mean()
    private var sleeping = Mean()
    private var waits = 0

    /// Waits in one way before the other has its turn, and how many it gets then.
    private static var period: Int { 512 }
    private static var trial: Int { 8 }

    /// - Parameter processors: How many processors the process may use.
    init(_ waiting: PagerConfiguration.Waiting, processors: Int) {
        switch waiting {
        case .poll, .block:
            limit = 0
            isAdaptive = false
        case .spin:
            // For ever, and still a time that may be added to another.
            limit = .max / 2
            isAdaptive = false
        case .adaptive(let upTo):
            limit = processors > 1 ? upTo.nanoseconds : 0
            isAdaptive = limit > 0
        }
    }

    /// How long to look, in nanoseconds, before sleeping.
    mutating func budget() -> UInt64 {
        guard isAdaptive else { return limit }
        let position = waits % Self.period
        waits &+= 1
        if position == 0 { looking = Mean() }
        if position == Self.trial { sleeping = Mean() }
        let looks = position < Self.trial ? true : position < 2 * Self.trial ? false : looking.isLess(than: sleeping)
        return looks ? limit : 0
    }

    /// Learns how long it took until there was a fault.
    ///
    /// - Parameters:
    ///   - start: When the wait began.
    ///   - budget: How long was looked for it.
    @inline(__always)
    mutating func learn(since start: UInt64, budget: UInt64) {
        if isAdaptive { learn(cuffd_monotonic_nanoseconds() &- start, budget: budget) }
    }

    mutating func learn(_ nanoseconds: UInt64, budget: UInt64) {
        // Both ways take long where faults are rare, and then sleeping is the cheaper one.
        let counted = min(nanoseconds, 2 * limit)
        if budget > 0 { looking.add(counted) } else { sleeping.add(counted) }
    }

    /// A mean in which the last sixteen values count the most.
    private struct Mean {
        private var value: Int64 = 0
        private var count: Int64 = 0

        mutating func add(_ nanoseconds: UInt64) {
            count = min(count + 1, 16)
            value += (Int64(clamping: nanoseconds) - value) / count
        }

        /// By more than chance: an eighth.
        func isLess(than other: Mean) -> Bool { value < other.value - other.value / 8 }
    }
}
