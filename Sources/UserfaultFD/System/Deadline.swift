internal import CUserfaultFD

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds since an arbitrary start.
package struct MonotonicInstant: Comparable, Hashable, Sendable {
    package let nanoseconds: UInt64

    package init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    package static var now: MonotonicInstant { MonotonicInstant(nanoseconds: cuffd_monotonic_nanoseconds()) }

    /// The latest moment there is: a wait for it never ends by itself.
    package static var distantFuture: MonotonicInstant { MonotonicInstant(nanoseconds: .max) }

    package static func < (lhs: MonotonicInstant, rhs: MonotonicInstant) -> Bool { lhs.nanoseconds < rhs.nanoseconds }

    /// The moment after a duration; ``distantFuture`` if it lies past the end of the clock.
    package static func + (lhs: MonotonicInstant, rhs: Duration) -> MonotonicInstant {
        let (sum, wraps) = lhs.nanoseconds.addingReportingOverflow(rhs.wholeNanoseconds)
        return wraps ? .distantFuture : MonotonicInstant(nanoseconds: sum)
    }
}

extension Duration {
    /// The duration in nanoseconds: 0 if it is negative, the largest number if it is longer.
    package var wholeNanoseconds: UInt64 {
        // `components` has no room for longer ones.
        guard self < .seconds(1 << 62) else { return .max }
        guard self > .zero else { return 0 }
        let (seconds, attoseconds) = components
        let (whole, overflows) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, wraps) = whole.addingReportingOverflow(UInt64(attoseconds) / 1_000_000_000)
        return overflows || wraps ? .max : sum
    }
}

/// When a wait ends by itself.
package struct Deadline: Sendable {
    package let instant: MonotonicInstant

    /// - Parameter duration: How long from now; `nil` for a wait without a limit.
    package init(after duration: Duration?) {
        instant = duration.map { MonotonicInstant.now + $0 } ?? .distantFuture
    }

    package init(at instant: MonotonicInstant) {
        self.instant = instant
    }

    /// A wait without a limit.
    package static var never: Deadline { Deadline(at: .distantFuture) }

    package var isNever: Bool { instant == .distantFuture }

    package var hasPassed: Bool { !isNever && MonotonicInstant.now >= instant }

    /// What is left, as `poll(2)` takes it: whole milliseconds, rounded up so that a wait never ends early.
    ///
    /// -1 without a limit. A limit of more than 24 days is cut, so that the caller must look at ``hasPassed`` and wait
    /// again.
    package var remainingMilliseconds: CInt {
        guard !isNever else { return -1 }
        let now = MonotonicInstant.now
        guard now < instant else { return 0 }
        // No clamping conversion: not optimized, its first use takes memory from the heap.
        let left = (instant.nanoseconds - now.nanoseconds - 1) / 1_000_000 + 1
        return left > UInt64(CInt.max) ? .max : CInt(truncatingIfNeeded: left)
    }

    /// What is left in nanoseconds, as `futex(2)` takes it; -1 without a limit.
    package var remainingNanoseconds: Int64 {
        guard !isNever else { return -1 }
        let now = MonotonicInstant.now
        guard now < instant else { return 0 }
        let left = instant.nanoseconds - now.nanoseconds
        return left > UInt64(Int64.max) ? .max : Int64(truncatingIfNeeded: left)
    }
}
