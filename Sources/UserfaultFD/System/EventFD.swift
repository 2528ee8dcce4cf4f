internal import CUserfaultFD
internal import SystemPackage

/// An eventfd: a signal from one thread that ends the waiting of another.
///
/// Add one to a ``PollSet`` beside the userfaultfds, and signal it to stop the thread that waits. It stays readable until
/// it is cleared, so every thread that waits for it, now or later, sees the signal.
public struct EventFD: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    /// Creates an eventfd that is not signalled.
    ///
    /// Close-on-exec and non-blocking. The corresponding system call is `eventfd(2)`.
    ///
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/eventFD``: `EMFILE`, `ENFILE`, `ENOMEM`.
    public init() throws(UserfaultError) {
        descriptor = OwnedDescriptor(adopting: try answer(to: .eventFD) { cuffd_eventfd() })
    }

    /// Signals: everybody who waits for it is woken.
    ///
    /// It neither allocates nor takes a lock.
    public func signal() {
        // The only failure of a valid eventfd is a full counter, which is as readable as can be.
        _ = cuffd_eventfd_signal(descriptor.rawValue)
    }

    /// Takes the signal back.
    ///
    /// - Returns: Whether it was signalled.
    @discardableResult
    public func clear() -> Bool {
        cuffd_eventfd_drain(descriptor.rawValue) >= 0
    }
}
