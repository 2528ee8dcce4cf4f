internal import CUserfaultFD
internal import SystemPackage

extension UserfaultFD {
    /// Reads as many messages as there are and the batch has room for, in one system call.
    ///
    /// Page faults come first, then the other events, each in their order. Each fault goes to one reader only, and is
    /// not repeated unless the thread faults again. Signals do not end the read. Allocates nothing. Available since
    /// Linux 4.3.
    ///
    /// - Parameter batch: Where the messages go. What was left in it is forgotten, fork descriptors closed.
    /// - Returns: The number of messages; 0 if there are none and the descriptor is non-blocking.
    /// - Throws: ``UserfaultError``: `EINVAL` before ``negotiate(_:)``; `EMFILE` if a fork event found no free descriptor,
    ///   and stays queued.
    @discardableResult
    public func read(into batch: inout EventBatch) throws(UserfaultError) -> Int {
        guard let count = try readWhereDescriptorsAreFree(into: &batch) else {
            throw UserfaultError(.read, errno: .tooManyOpenFiles)
        }
        return count
    }

    /// Reads as ``read(into:)`` does, for a thread that must not allocate: an observer of thrown errors might.
    ///
    /// - Parameters:
    ///   - batch: Where the messages go.
    ///   - neverWaits: Whether it returns at once in blocking mode too, which other processes may have set. Before Linux
    ///     6.10, and for the descriptors of children, it waits all the same.
    /// - Returns: `nil` for `EMFILE` and `ENFILE`.
    package func readWhereDescriptorsAreFree(
        into batch: inout EventBatch, neverWaits: Bool = false
    ) throws(UserfaultError) -> Int? {
        let inheritance = EventBatch.Inheritance(
            enabled: enabledFeatures, supported: supportedFeatures, handlesKernelFaults: handlesKernelFaults)
        while true {
            let value = unsafe batch.refill(inheriting: inheritance) { messages in
                unsafe neverWaits
                    ? cuffd_read_messages_now(descriptor.rawValue, messages.baseAddress, messages.count)
                    : cuffd_read_messages(descriptor.rawValue, messages.baseAddress, messages.count)
            }
            if value >= 0 { return batch.count }
            switch Errno(rawValue: CInt(-value)) {
            case .interrupted: continue
            case .resourceTemporarilyUnavailable: return 0
            case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return nil
            case let errno:
                let nowhere = AddressRange(start: 0, count: 0)
                throw UserfaultError(.read, errno: errno, circumstance: explain(errno, of: .read, nowhere))
            }
        }
    }

    /// Waits until there is a message, or the time is over.
    ///
    /// A message may be gone when it is read: another reader took it, or a signal ended the fault. To be able to end the
    /// wait, use ``poll(timeout:stop:)``, or a ``PollSet`` for several userfaultfds. The corresponding system call is
    /// `poll(2)`, repeated with the time that is left when a signal interrupts it.
    ///
    /// - Parameter timeout: How long to wait; `nil` waits without a limit, and the end of the process does not end it.
    /// - Returns: Whether there is something to read.
    /// - Throws: ``UserfaultError``: `EINVAL` if the descriptor is in blocking mode
    ///   (``UserfaultError/Reason/blockingMode``) or not negotiated (``UserfaultError/Reason/notNegotiated``); `EBADF` if
    ///   it was closed; `ENOMEM`.
    public func poll(timeout: Duration? = nil) throws(UserfaultError) -> Bool {
        try poll(-1, until: Deadline(after: timeout)) == .messages
    }

    /// What ended a wait.
    public enum PollResult: Hashable, Sendable {
        /// There is something to read.
        case messages
        /// The stop event is signalled. There may be messages too.
        case stopped
        /// The time is over.
        case timedOut
    }

    /// Waits until there is a message, another thread signals, or the time is over.
    ///
    /// - Parameters:
    ///   - timeout: How long to wait; `nil` waits without a limit.
    ///   - stop: What ends the wait, from any thread: ``EventFD/signal()``.
    /// - Returns: What ended the wait; ``PollResult/stopped`` if there is a message as well.
    /// - Throws: ``UserfaultError``, as ``poll(timeout:)``.
    public func poll(timeout: Duration? = nil, stop: borrowing EventFD) throws(UserfaultError) -> PollResult {
        try poll(stop.descriptor.rawValue, until: Deadline(after: timeout))
    }

    private func poll(_ stop: CInt, until deadline: Deadline) throws(UserfaultError) -> PollResult {
        let ready = try PairReadiness(of: descriptor.rawValue, stop, until: deadline)
        if ready.second != 0 { return .stopped }
        guard !ready.first.hasError else {
            let isNegotiated = isNegotiated || Self.isNegotiated(descriptor.rawValue)
            throw UserfaultError(
                .poll, errno: .invalidArgument, circumstance: isNegotiated ? .blockingMode : .notNegotiated)
        }
        return ready.first == 0 ? .timedOut : .messages
    }

    /// Sets whether reading waits for a message, for every descriptor of the same open file, in other processes too.
    ///
    /// The corresponding system call is `fcntl(2)` with `F_SETFL`; it may be called at any time.
    ///
    /// - Parameter nonBlocking: Whether reading returns at once. `poll` works in this mode only.
    /// - Throws: ``UserfaultError``: `EBADF`.
    public func setNonBlocking(_ nonBlocking: Bool) throws(UserfaultError) {
        let flags = try answer(to: .configure) { cuffd_status_flags(descriptor.rawValue) }
        let wanted = nonBlocking ? flags | CUFFD_O_NONBLOCK : flags & ~CUFFD_O_NONBLOCK
        _ = try answer(to: .configure) { cuffd_set_status_flags(descriptor.rawValue, wanted) }
    }

    /// Whether reading returns at once.
    package var isNonBlocking: Bool {
        let flags = cuffd_status_flags(descriptor.rawValue)
        return flags >= 0 && flags & CUFFD_O_NONBLOCK != 0
    }
}
