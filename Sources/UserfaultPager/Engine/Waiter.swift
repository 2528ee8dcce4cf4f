internal import UserfaultFD

// Of one handler, or the reader: no other thread sees it.

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
    private var phase = Phase.tryingToSleep
    /// Waits that are left of this phase.
    private var left = Self.trial
    /// For how many waits holds what was found out: longer where it is found out again.
    private var hold = Self.shortestHold
    private var pays = false

    private enum Phase {
        case tryingToSleep, tryingToLook, decided
    }

    private static var trial: Int { 8 }
    /// For ever, and still a time that may be added to another.
    private static var longest: UInt64 { .max / 2 }
    private static var shortestHold: Int { 512 }
    static var longestHold: Int { 4 << 10 }

    /// - Parameter processors: How many processors the process may use.
    init(_ waiting: PagerConfiguration.Waiting, processors: Int) {
        switch waiting {
        case .poll, .block:
            limit = 0
            isAdaptive = false
        case .spin:
            limit = Self.longest
            isAdaptive = false
        case .adaptive(let upTo):
            limit = processors > 1 ? min(upTo.wholeNanoseconds, Self.longest) : 0
            isAdaptive = limit > 0
        }
    }

    /// How long to look, in nanoseconds, before sleeping.
    mutating func budget() -> UInt64 {
        guard isAdaptive else { return limit }
        if left == 0 { goOn() }
        left -= 1
        guard phase == .tryingToLook || phase == .decided && pays else { return 0 }
        // Looking for longer than sleeping takes cannot pay, and may keep from running whom it looks for.
        return min(limit, 2 * UInt64(sleeping.value))
    }

    private mutating func goOn() {
        switch phase {
        case .tryingToSleep:
            phase = .tryingToLook
            left = Self.trial
        case .tryingToLook:
            let paid = pays
            pays = looking.isLess(than: sleeping)
            hold = pays == paid ? min(2 * hold, Self.longestHold) : Self.shortestHold
            phase = .decided
            left = hold
        case .decided:
            looking = Mean()
            sleeping = Mean()
            phase = .tryingToSleep
            left = Self.trial
        }
    }

    /// Whether it wants to know how long this wait takes: looking at the clock is part of what a fault costs.
    var learns: Bool { isAdaptive && (phase != .decided || pays) }

    /// Learns how long it took until there was a fault.
    ///
    /// - Parameters:
    ///   - nanoseconds: Since the wait began.
    ///   - budget: How long was looked for it.
    mutating func learn(_ nanoseconds: UInt64, budget: UInt64) {
        // What came before, or the time until there was anything to do, is in the first wait.
        guard phase == .decided || left < Self.trial - 1 else { return }
        // Both ways take long where faults are rare, and then sleeping is the cheaper one.
        let counted = min(nanoseconds, 2 * limit)
        if budget > 0 { looking.add(counted) } else { sleeping.add(counted) }
        // Eight waits say little: looking must go on to pay.
        if phase == .decided, pays { pays = looking.isLess(than: sleeping) }
        if phase == .tryingToLook, looking.count > 2, !looking.isLess(than: sleeping) { left = 0 }
    }

    /// Does once, with one of its own, all that one comes to: without optimisation what is done for the first time takes memory
    /// from the heap.
    static func rehearse() {
        var waiter = Waiter(.adaptive(upTo: .microseconds(50)), processors: 2)
        // Both trials, and what follows.
        for _ in 0..<4 * trial {
            let budget = waiter.budget()
            if waiter.learns { waiter.learn(1, budget: budget) }
        }
    }

    /// A mean in which the last sixteen values count the most.
    private struct Mean {
        private(set) var value: Int64 = 0
        private(set) var count: Int64 = 0

        mutating func add(_ nanoseconds: UInt64) {
            count = min(count + 1, 16)
            value += (Int64(clamping: nanoseconds) - value) / count
        }

        /// By more than chance: a quarter.
        func isLess(than other: Mean) -> Bool { value < other.value - other.value / 4 }
    }
}
