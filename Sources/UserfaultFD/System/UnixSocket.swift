internal import CUserfaultFD
package import SystemPackage

/// Stream sockets of the Unix domain, close-on-exec, as owned descriptors.
package enum UnixSocket {
    /// Two sockets that are connected with each other.
    package struct Pair: ~Copyable {
        package let first: OwnedDescriptor
        package let second: OwnedDescriptor

        package init() throws(UserfaultError) {
            var sockets: [Int32] = [-1, -1]
            _ = try answer(to: .socket) { unsafe cuffd_socketpair(&sockets) }
            first = OwnedDescriptor(adopting: sockets[0])
            second = OwnedDescriptor(adopting: sockets[1])
        }
    }

    /// A socket that listens at a path.
    ///
    /// - Parameter mode: Its permissions, before anybody can connect; `nil` for those that the umask leaves.
    package static func listen(
        at path: String, backlog: Int32 = 16, mode: UInt32? = nil
    ) throws(UserfaultError) -> OwnedDescriptor {
        OwnedDescriptor(
            adopting: try answer(to: .socket) { unsafe cuffd_unix_listen(path, backlog, mode.map(Int64.init) ?? -1) })
    }

    /// Sets the permissions of a socket; refuses to do so to any other file, and follows no link.
    package static func setMode(_ mode: UInt32, of path: String) throws(UserfaultError) {
        _ = try answer(to: .socket) { unsafe cuffd_unix_set_mode(path, mode) }
    }

    /// A socket that is connected to a path.
    package static func connect(to path: String) throws(UserfaultError) -> OwnedDescriptor {
        OwnedDescriptor(
            adopting: try answer(to: .socket, retryOnInterrupt: true) { unsafe cuffd_unix_connect(path) })
    }

    /// The next connection of a listening socket.
    package static func accept(from listener: borrowing OwnedDescriptor) throws(UserfaultError) -> OwnedDescriptor {
        let number = listener.rawValue
        return OwnedDescriptor(adopting: try answer(to: .socket, retryOnInterrupt: true) { cuffd_accept(number) })
    }

    /// A socket in the file system, which another one may replace at its path.
    package struct Identity: Sendable {
        fileprivate var identity = cuffd_file_identity()

        /// The socket that is at a path now.
        package init(at path: String) throws(UserfaultError) {
            _ = try answer(to: .socket) { unsafe cuffd_unix_identify(path, &identity) }
        }
    }

    /// The socket at a path, if nobody has it open any more.
    ///
    /// A listener does not notice that it was looked for.
    package static func abandoned(at path: String) -> Identity? {
        // First which one it is, so that it is that one which has nobody.
        guard let identity = try? Identity(at: path) else { return nil }
        return unsafe cuffd_unix_probe(path) == -Errno.connectionRefused.rawValue ? identity : nil
    }

    /// Removes what ``listen(at:backlog:mode:)`` has left beside a path in processes that were killed.
    package static func removeLeftovers(of path: String) { unsafe cuffd_unix_remove_leftovers(path) }

    /// Removes a socket from the file system, and nothing else that has taken its path.
    package static func remove(_ socket: Identity, at path: String) throws(UserfaultError) {
        _ = try answer(to: .socket) {
            unsafe withUnsafePointer(to: socket.identity) { unsafe cuffd_unix_remove(path, $0) }
        }
    }

    /// Ends each sending over a socket with `EAGAIN` after a time.
    package static func limitSending(
        over socket: borrowing OwnedDescriptor, to limit: Duration
    ) throws(UserfaultError) {
        let number = socket.rawValue
        _ = try answer(to: .socket) { cuffd_limit_sending(number, CInt(clamping: limit.wholeNanoseconds / 1_000_000)) }
    }

    /// Lets nothing more arrive; what has arrived can still be taken.
    ///
    /// A listening socket refuses clients from then on.
    package static func refuseMore(at socket: FileDescriptor) throws(UserfaultError) {
        _ = try answer(to: .socket) { cuffd_refuse_more(socket.rawValue) }
    }

    /// Whether that was done, by this process or another one that has the same socket.
    package static func refusesMore(at socket: FileDescriptor) throws(UserfaultError) -> Bool {
        try answer(to: .socket) { cuffd_refuses_more(socket.rawValue) } != 0
    }

    /// Lets every message that arrives bring a handle of the process that sent it; at a socket that listens, those of all its
    /// connections.
    ///
    /// Set on a connection, it comes too late for a message that was sent since that was accepted.
    package static func passSenders(to socket: FileDescriptor) throws(UserfaultError) {
        _ = try answer(to: .socket) { cuffd_pass_sender(socket.rawValue) }
    }
}
