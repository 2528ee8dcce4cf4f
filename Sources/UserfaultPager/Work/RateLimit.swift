internal import Synchronization

// Asked by whoever looks for a piece of a job, told by whoever has taken one. Knows no clock.

/// How many bytes a second may be loaded for which no thread waits.
///
/// What was taken is paid for afterwards: a piece may begin once all that were taken before are paid.
final class RateLimit: Sendable {
    private let bytesPerSecond: UInt64
    /// When all is paid, in nanoseconds.
    private let paidAt = Atomic<UInt64>(0)

    init(bytesPerSecond: Int) {
        self.bytesPerSecond = UInt64(bytesPerSecond)
    }

    /// Whether a piece may begin.
    ///
    /// - Parameter next: Lowered to when one may.
    func isOpen(at now: UInt64, next: inout UInt64) -> Bool {
        let paid = paidAt.load(ordering: .relaxed)
        if paid > now { next = min(next, paid) }
        return paid <= now
    }

    /// Takes bytes.
    func charge(_ bytes: Int, at now: UInt64) {
        let time = UInt64(bytes).multipliedFullWidth(by: 1_000_000_000)
        let cost = time.high < bytesPerSecond ? bytesPerSecond.dividingFullWidth(time).quotient : UInt64.max >> 1
        var paid = paidAt.load(ordering: .relaxed)
        while true {
            let (exchanged, original) = paidAt.compareExchange(
                expected: paid,
                desired: max(paid, now).addingReportingOverflow(cost).overflow ? .max : max(paid, now) + cost,
                ordering: .relaxed)
            if exchanged { return }
            paid = original
        }
    }
}
