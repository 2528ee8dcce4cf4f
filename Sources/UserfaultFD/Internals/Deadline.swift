internal import CUserfaultFD

/// A moment on the monotonic clock.
struct Deadline {
    private let nanoseconds: UInt64

    init(after duration: Duration) {
        let (seconds, attoseconds) = duration.components
        let (whole, overflow) = UInt64(max(0, seconds)).multipliedReportingOverflow(by: 1_000_000_000)
        let span = overflow ? UInt64.max : whole &+ UInt64(max(0, attoseconds) / 1_000_000_000)
        let (sum, wrapped) = cuffd_monotonic_nanoseconds().addingReportingOverflow(span)
        nanoseconds = wrapped ? .max : sum
    }

    /// The time that is left, rounded up to whole milliseconds so that waiting never ends early.
    var remainingMilliseconds: CInt {
        let now = cuffd_monotonic_nanoseconds()
        guard now < nanoseconds else { return 0 }
        return CInt(clamping: (nanoseconds - now - 1) / 1_000_000 + 1)
    }
}
