internal import CUserfaultFD

/// Decides for one thread how long it looks for the next fault before it sleeps.
struct Waiter {
    private let limit: UInt64
    private let isAdaptive: Bool
    private var misses = 0
    private var sleepsUntilNextTry = 0

    init(_ waiting: PagerConfiguration.Waiting) {
        var processors: UInt64 = 0
        _ = unsafe cuffd_get_affinity(&processors)
        switch waiting {
        case .poll, .block:
            limit = 0
            isAdaptive = false
        case .spin:
            limit = .max
            isAdaptive = false
        case .adaptive(let upTo):
            // Who looks on the only processor keeps the thread from running whose fault it waits for.
            limit = processors.nonzeroBitCount > 1 ? upTo.nanoseconds : 0
            isAdaptive = true
        }
    }

    /// How long to look, in nanoseconds, before sleeping.
    mutating func budget() -> UInt64 {
        guard isAdaptive, sleepsUntilNextTry > 0 else { return limit }
        sleepsUntilNextTry -= 1
        return 0
    }

    /// Learns whether looking was worth it.
    mutating func learn(found: Bool) {
        guard isAdaptive else { return }
        misses = found ? 0 : min(misses + 1, 12)
        // Looking in vain costs as much as many faults do: after a few times in a row try ever more seldom.
        sleepsUntilNextTry = misses < 3 ? 0 : 1 << (misses - 2)
    }
}
