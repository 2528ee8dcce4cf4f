import UserfaultFD

@testable import UserfaultPager

/// Where a source waits until the test lets it go on: nobody waits there for ever.
final class Gate: Sendable {
    private let reached = Signal()
    private let opened = Signal()

    func pass() {
        reached.event.signal()
        _ = opened.wait(.seconds(60))
    }

    func open() { opened.event.signal() }

    /// - Returns: `false` where nobody comes.
    func waitUntilReached() -> Bool { reached.wait(.seconds(20)) }

    private struct Signal: ~Copyable {
        let event: EventFD

        init() {
            do { event = try EventFD() } catch { fatalError("no eventfd: \(error)") }
        }

        func wait(_ limit: Duration) -> Bool {
            ((try? poll(event.descriptor.rawValue, until: Deadline(after: limit))) ?? 0) != 0
        }
    }
}

/// - Returns: `false` where it does not come true.
@discardableResult
func wait(until isTrue: () throws -> Bool) rethrows -> Bool {
    let deadline = MonotonicInstant.now.nanoseconds + 20_000_000_000
    while MonotonicInstant.now.nanoseconds < deadline {
        if try isTrue() { return true }
        NativeThread.yield()
    }
    return false
}
