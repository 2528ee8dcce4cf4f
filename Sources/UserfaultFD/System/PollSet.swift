internal import CUserfaultFD
public import SystemPackage

/// Descriptors that one thread waits for together: userfaultfds, an ``EventFD`` that stops it, processes that may exit.
///
/// Any thread may add and remove while another waits. Waiting allocates nothing, so that it suits the thread that reads
/// fork events. The corresponding system calls are those of `epoll(7)`, level-triggered.
///
/// A set knows descriptors and does not own them. Remove one before you close it: the kernel forgets a closed descriptor
/// only when nobody else has the same open file, and a userfaultfd is often shared.
public struct PollSet: ~Copyable, Sendable {
    package let epoll: OwnedDescriptor

    /// Creates an empty set.
    ///
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/pollSet``: `EMFILE`, `ENFILE`, `ENOMEM`.
    public init() throws(UserfaultError) {
        epoll = OwnedDescriptor(adopting: try answer(to: .pollSet) { cuffd_epoll_create() })
    }

    /// Adds a userfaultfd: ready when there is a message to read.
    ///
    /// - Parameters:
    ///   - userfaultFD: A descriptor in non-blocking mode; another is reported as ``Readiness/error`` at once.
    ///   - token: What ``wait(into:timeout:)`` calls it by. Two descriptors may have the same.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/pollSet``: `EEXIST` if it is in the set, `ENOMEM`,
    ///   `ENOSPC` at the limit of `fs.epoll.max_user_watches`.
    public func add(_ userfaultFD: borrowing UserfaultFD, token: UInt64) throws(UserfaultError) {
        try add(rawDescriptor: userfaultFD.descriptor.rawValue, token: token)
    }

    /// Adds an eventfd: ready while it is signalled.
    public func add(_ event: borrowing EventFD, token: UInt64) throws(UserfaultError) {
        try add(rawDescriptor: event.descriptor.rawValue, token: token)
    }

    /// Adds a process: ready from its exit on.
    public func add(_ process: borrowing ProcessHandle, token: UInt64) throws(UserfaultError) {
        try add(rawDescriptor: process.descriptor.rawValue, token: token)
    }

    /// Adds any descriptor: ready when it is readable.
    ///
    /// Regular files and directories cannot be waited for: `EPERM`.
    public func add(_ descriptor: FileDescriptor, token: UInt64) throws(UserfaultError) {
        try add(rawDescriptor: descriptor.rawValue, token: token)
    }

    /// Removes a userfaultfd.
    ///
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/pollSet``: `ENOENT` if it is not in the set.
    public func remove(_ userfaultFD: borrowing UserfaultFD) throws(UserfaultError) {
        try remove(rawDescriptor: userfaultFD.descriptor.rawValue)
    }

    /// Removes an eventfd.
    public func remove(_ event: borrowing EventFD) throws(UserfaultError) {
        try remove(rawDescriptor: event.descriptor.rawValue)
    }

    /// Removes a process.
    public func remove(_ process: borrowing ProcessHandle) throws(UserfaultError) {
        try remove(rawDescriptor: process.descriptor.rawValue)
    }

    /// Removes any descriptor.
    public func remove(_ descriptor: FileDescriptor) throws(UserfaultError) {
        try remove(rawDescriptor: descriptor.rawValue)
    }

    package func add(rawDescriptor: Int32, token: UInt64) throws(UserfaultError) {
        _ = try answer(to: .pollSet) { cuffd_epoll_add(epoll.rawValue, rawDescriptor, token, 0) }
    }

    package func remove(rawDescriptor: Int32) throws(UserfaultError) {
        _ = try answer(to: .pollSet) { cuffd_epoll_delete(epoll.rawValue, rawDescriptor) }
    }

    /// Removes a descriptor that may have been removed before; makes no error of that.
    package func discard(rawDescriptor: Int32) { _ = cuffd_epoll_delete(epoll.rawValue, rawDescriptor) }

    /// Waits until a descriptor of the set is ready, or the time is over.
    ///
    /// Signals do not end the wait. What is reported may be gone when it is read: another thread took it.
    ///
    /// - Parameters:
    ///   - batch: Where the ready descriptors go; what it held is forgotten.
    ///   - timeout: How long to wait; `nil` waits without a limit, zero not at all.
    /// - Returns: How many are ready; 0 if the time is over.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/pollSet``.
    @discardableResult
    public func wait(into batch: inout ReadyBatch, timeout: Duration? = nil) throws(UserfaultError) -> Int {
        try wait(into: &batch, until: Deadline(after: timeout))
    }

    package func wait(into batch: inout ReadyBatch, until deadline: Deadline) throws(UserfaultError) -> Int {
        while true {
            let count = unsafe batch.refill { tokens, events in
                unsafe cuffd_epoll_wait(
                    epoll.rawValue, tokens.baseAddress, events.baseAddress, CInt(truncatingIfNeeded: tokens.count),
                    deadline.remainingMilliseconds)
            }
            // A signal, or a limit that one call cannot express: wait for what is left.
            if count == -Errno.interrupted.rawValue || (count == 0 && !deadline.hasPassed) { continue }
            return Int(try answer(to: .pollSet) { count })
        }
    }

    /// Why a descriptor is ready.
    public struct Readiness: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt32

        /// A set of the kernel's bits, whatever they are.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// There is something to read.
        ///
        /// The corresponding C constant is `EPOLLIN`.
        public static var readable: Readiness { Readiness(rawValue: 0x1) }
        /// The descriptor cannot be waited for: a userfaultfd in blocking mode, or not negotiated.
        ///
        /// The corresponding C constant is `EPOLLERR`.
        public static var error: Readiness { Readiness(rawValue: 0x8) }
        /// The other end is gone; never reported of a userfaultfd.
        ///
        /// The corresponding C constant is `EPOLLHUP`.
        public static var hangUp: Readiness { Readiness(rawValue: 0x10) }
    }

    /// A descriptor that is ready.
    public struct Ready: Hashable, Sendable {
        /// What the descriptor was added with.
        public let token: UInt64
        /// Why it is ready.
        public let readiness: Readiness
    }
}
