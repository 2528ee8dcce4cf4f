import CUserfaultFD

@testable import UserfaultPager

/// Where a source waits until the test lets it go on: nobody waits there for ever.
final class Gate: Sendable {
    private let reached = cuffd_eventfd()
    private let opened = cuffd_eventfd()

    deinit {
        _ = cuffd_close(reached)
        _ = cuffd_close(opened)
    }

    func pass() {
        _ = cuffd_eventfd_signal(reached)
        _ = cuffd_poll(opened, CUFFD_POLLIN, 60_000)
    }

    func open() { _ = cuffd_eventfd_signal(opened) }

    /// - Returns: `false` where nobody comes.
    func waitUntilReached() -> Bool { cuffd_poll(reached, CUFFD_POLLIN, 20_000) > 0 }
}

/// Numbered pages, each load of which waits at a gate.
struct GatedSource: PageSource {
    let gate: Gate

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        gate.pass()
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

/// - Returns: `false` where it does not come true.
@discardableResult
func wait(until isTrue: () -> Bool) -> Bool {
    let deadline = cuffd_monotonic_nanoseconds() + 20_000_000_000
    while cuffd_monotonic_nanoseconds() < deadline {
        if isTrue() { return true }
        _ = cuffd_sched_yield()
    }
    return false
}
