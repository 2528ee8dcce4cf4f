internal import CUserfaultFD
internal import SystemPackage

extension UserfaultFD {
    /// Reads as many messages as there are and the batch has room for, in one system call.
    ///
    /// Page faults come first, then the other events, each in their order. Each fault goes to one reader only, and is
    /// not repeated unless the thread faults again. Signals are waited out. Allocates nothing. Available since
    /// Linux 4.3.
    ///
    /// - Parameter batch: Where the messages go. What was left in it is forgotten, fork descriptors closed.
    /// - Returns: The number of messages; 0 where there are none and the descriptor is non-blocking.
    /// - Throws: ``UserfaultError``: `EINVAL` before ``negotiate(_:)``; `EMFILE` where a fork event found no free
    ///   descriptor, and stays queued.
    @discardableResult
    public func read(into batch: inout EventBatch) throws(UserfaultError) -> Int {
        guard let count = try readWhereDescriptorsAreFree(into: &batch) else {
            throw UserfaultError(.read, errno: .tooManyOpenFiles)
        }
        return count
    }

    /// Reads as ``read(into:)`` does, for a thread that must not allocate: what watches errors being thrown might.
    ///
    /// - Returns: `nil` for `EMFILE` and `ENFILE`.
    package func readWhereDescriptorsAreFree(into batch: inout EventBatch) throws(UserfaultError) -> Int? {
        let inheritance = EventBatch.Inheritance(
            enabled: enabledFeatures, supported: supportedFeatures, handlesKernelFaults: handlesKernelFaults)
        while true {
            let answer = unsafe batch.refill(inheriting: inheritance) { messages in
                unsafe cuffd_read_messages(descriptor.rawValue, messages.baseAddress, messages.count)
            }
            if answer >= 0 { return batch.count }
            switch Errno(rawValue: CInt(-answer)) {
            case .interrupted: continue
            case .resourceTemporarilyUnavailable: return 0
            case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return nil
            default:
                throw UserfaultError(.read, answer: answer, circumstances: explain(CInt(answer)))
            }
        }
    }

    /// Waits until there is a message, or the time is over.
    ///
    /// A message may be gone when it is read: another reader took it, or a signal ended the fault. The corresponding
    /// system call is `poll(2)`, repeated with the time that is left when a signal interrupts it.
    ///
    /// - Parameter timeout: How long to wait; `nil` waits for ever, which the end of the process does not end.
    /// - Returns: Whether there is something to read.
    /// - Throws: ``UserfaultError``: `EINVAL` where the descriptor is in blocking mode or not negotiated, for which the
    ///   kernel answers `POLLERR`; `ENOMEM`.
    public func poll(timeout: Duration? = nil) throws(UserfaultError) -> Bool {
        let deadline = timeout.map { Deadline(after: $0) }
        while true {
            let ready = cuffd_poll(descriptor.rawValue, CUFFD_POLLIN, deadline?.remainingMilliseconds ?? -1)
            if ready == -Errno.interrupted.rawValue { continue }
            guard ready >= 0 else { throw UserfaultError(.poll, answer: ready) }
            if ready == 0 { return false }
            guard CShort(ready) & CUFFD_POLLERR == 0 else {
                throw UserfaultError(
                    .poll, errno: .invalidArgument, circumstances: isNegotiated ? [] : .notNegotiated)
            }
            return true
        }
    }

    /// Sets whether reading waits for a message.
    ///
    /// The corresponding system call is `fcntl(2)` with `F_SETFL`; it may be called at any time.
    ///
    /// - Parameter nonBlocking: Whether reading answers at once. `poll` works in this mode only.
    /// - Throws: ``UserfaultError``.
    public func setNonBlocking(_ nonBlocking: Bool) throws(UserfaultError) {
        let flags = cuffd_status_flags(descriptor.rawValue)
        guard flags >= 0 else { throw UserfaultError(.configure, answer: flags) }
        let wanted = nonBlocking ? flags | CUFFD_O_NONBLOCK : flags & ~CUFFD_O_NONBLOCK
        let answer = cuffd_set_status_flags(descriptor.rawValue, wanted)
        guard answer >= 0 else { throw UserfaultError(.configure, answer: answer) }
    }
}
