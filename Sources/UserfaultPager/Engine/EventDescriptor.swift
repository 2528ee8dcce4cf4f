internal import CUserfaultFD
internal import UserfaultFD

/// An `eventfd(2)`: readable from the first signal on.
struct EventDescriptor: ~Copyable, Sendable {
    let rawValue: CInt

    init() throws(PagerError) {
        rawValue = cuffd_eventfd()
        guard rawValue >= 0 else { throw .noThread(-rawValue) }
    }

    deinit {
        _ = cuffd_close(rawValue)
    }

    func signal() { _ = cuffd_eventfd_signal(rawValue) }
}
