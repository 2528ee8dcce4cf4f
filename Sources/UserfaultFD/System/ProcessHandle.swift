internal import CUserfaultFD
public import SystemPackage

/// A process, held by a pidfd: unlike a process id, it never comes to mean another process.
///
/// A userfaultfd does not report the end of the process whose memory it serves: `poll` stays silent. Add the process to
/// a ``PollSet`` to be woken when it exits, or ask ``UserfaultFD/isProcessGone``.
public struct ProcessHandle: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    /// Opens a process by its id.
    ///
    /// Ids are reused: if the process is not a child of this one, it may have ended and another may have its id. Prefer
    /// ``init(peerOf:)``. The corresponding system call is `pidfd_open(2)`. Available since Linux 5.3.
    ///
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/openProcess``: `ESRCH` if there is no such process;
    ///   `EINVAL` for an id that is not positive; `EINVAL` or `ENOENT` for that of a thread; `EMFILE`.
    public init(id: Int32) throws(UserfaultError) {
        descriptor = OwnedDescriptor(adopting: try answer(to: .openProcess) { cuffd_pidfd_open(id) })
    }

    /// Opens the process at the other end of a connection.
    ///
    /// Asks for `SO_PEERPIDFD`, which cannot be mistaken for another process, and before Linux 6.5 for `SO_PEERCRED` and
    /// `pidfd_open(2)`. It is the process that connected, listened or made the pair; the socket may have been passed on.
    ///
    /// - Parameter socket: A connected Unix socket.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/openProcess``: `ESRCH` or `EINVAL` if the process has
    ///   ended; `ENODATA` or `EINVAL` if the socket is not connected; `EMFILE`.
    public init(peerOf socket: FileDescriptor) throws(UserfaultError) {
        descriptor = OwnedDescriptor(
            adopting: try answer(to: .openProcess) {
                let pidfd = cuffd_peer_pidfd(socket.rawValue)
                guard pidfd == -Errno.protocolNotAvailable.rawValue else { return pidfd }
                var peer = cuffd_peer()
                let credentials = unsafe cuffd_peer_credentials(socket.rawValue, &peer)
                return credentials < 0 ? credentials : cuffd_pidfd_open(peer.pid)
            })
    }

    /// Takes over a pidfd.
    ///
    /// - Parameter rawDescriptor: A pidfd that nobody else will close. It stays open, and yours, if this throws.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/openProcess``: `EBADF` if it is not an open pidfd.
    public init(adopting rawDescriptor: Int32) throws(UserfaultError) {
        // Signal 0 is sent to nobody. The call also takes a directory of /proc, which never becomes readable by an exit.
        if (try? FileStatus(of: rawDescriptor))?.isDirectory == true {
            throw UserfaultError(.openProcess, errno: .badFileDescriptor)
        }
        let sent = cuffd_pidfd_send_signal(rawDescriptor, 0)
        // A process that has ended is still a process.
        let lawful = [0, -Errno.noSuchProcess.rawValue, -Errno.notPermitted.rawValue]
        if !lawful.contains(sent) { _ = try answer(to: .openProcess) { sent } }
        descriptor = OwnedDescriptor(adopting: rawDescriptor)
    }

    package init(received descriptor: consuming OwnedDescriptor) {
        self.descriptor = descriptor
    }

    /// This process.
    public static func current() throws(UserfaultError) -> ProcessHandle {
        try ProcessHandle(id: cuffd_getpid())
    }

    /// Whether the process has exited.
    public var hasExited: Bool { cuffd_poll(descriptor.rawValue, CUFFD_POLLIN, 0) > 0 }

    /// Waits until the process has exited, or the time is over.
    ///
    /// - Parameter timeout: How long to wait; `nil` waits without a limit.
    /// - Returns: Whether it has exited.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/poll``.
    public func waitForExit(timeout: Duration? = nil) throws(UserfaultError) -> Bool {
        try poll(descriptor.rawValue, until: Deadline(after: timeout)) != 0
    }

    /// Sends a signal.
    ///
    /// The corresponding system call is `pidfd_send_signal(2)`.
    ///
    /// - Parameter signal: The signal's number; by default `SIGKILL`.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/signalProcess``: `ESRCH` if the process has exited
    ///   and was waited for; `EPERM`, `EINVAL`.
    public func kill(signal: Int32 = 9) throws(UserfaultError) {
        _ = try answer(to: .signalProcess) { cuffd_pidfd_send_signal(descriptor.rawValue, signal) }
    }

    /// A duplicate of a descriptor that the process has open, close-on-exec; the caller owns it.
    ///
    /// The corresponding system call is `pidfd_getfd(2)`. Available since Linux 5.6.
    ///
    /// - Parameter number: The descriptor's number in that process.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/takeDescriptor``: `EPERM` without the right to trace the
    ///   process, `EBADF` if it has no such descriptor, `ESRCH`, `EMFILE`.
    public func duplicateDescriptor(_ number: Int32) throws(UserfaultError) -> Int32 {
        try answer(to: .takeDescriptor) { cuffd_pidfd_getfd(descriptor.rawValue, number) }
    }

    /// Gives advice that leaves the contents of memory as they are.
    ///
    /// Newer kernels take any advice about the caller's own memory, also what drops it. The process may be this one, so this
    /// method refuses all other advice: use ``Mapping/advise(_:_:)``. The corresponding system call is
    /// `process_madvise(2)`. Available since Linux 5.10.
    ///
    /// - Parameters:
    ///   - advice: ``Advice/cold``, ``Advice/pageOut``, ``Advice/willNeed`` or ``Advice/collapse``.
    ///   - range: Whole pages, in the process' own addresses.
    /// - Returns: The bytes that were advised, from the start of the range.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/adviseProcess``: `EINVAL` for other advice; `EPERM` without
    ///   `CAP_SYS_NICE` and the right to trace the process, `ENOMEM` for unmapped addresses, `ESRCH`.
    @discardableResult
    public func advise(_ advice: Advice, _ range: AddressRange) throws(UserfaultError) -> Int {
        guard [.cold, .pageOut, .willNeed, .collapse].contains(advice) else {
            throw UserfaultError(.adviseProcess, errno: .invalidArgument)
        }
        return try answer(to: .adviseProcess) {
            cuffd_process_madvise(descriptor.rawValue, UInt64(range.start), range.count, advice.rawValue)
        }
    }

    /// Lends the pidfd for a call that this library does not have.
    ///
    /// The closure must not close it, nor keep it.
    public func withUnsafeDescriptor<Result: ~Copyable, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(FileDescriptor(rawValue: descriptor.rawValue))
    }
}
