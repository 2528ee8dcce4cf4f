public import SystemPackage
internal import UserfaultFD

/// A Unix socket at which clients connect.
///
/// The path stays in the file system when the value goes, as it must for a socket that systemd made; ``removePath()``
/// removes it.
public struct HandoffListener: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// The path to remove at the end; `nil` for a socket that somebody else bound.
    public let path: String?

    /// Whether others may have the socket too.
    let isAdopted: Bool

    /// What was bound there, as opposed to what is there later.
    private let identity: UnixSocket.Identity?

    /// Listens at a path.
    ///
    /// A socket that nobody has open any more is replaced. Who has one does not notice that it was looked for. What a process has
    /// left beside the path that was killed before its socket came there is removed.
    ///
    /// - Parameters:
    ///   - path: At most 107 bytes.
    ///   - mode: The permissions of the socket, such as `0o660`, before anybody can connect; `nil` for those that the umask
    ///     leaves.
    /// - Throws: ``HandoffError/kernel(_:)``: `EADDRINUSE` if somebody listens there, or if it is not a socket.
    public init(path: String, mode: UInt32? = nil) throws(HandoffError) {
        UnixSocket.removeLeftovers(of: path)
        descriptor = try asHandoffError { () throws(UserfaultError) in
            do throws(UserfaultError) {
                return try UnixSocket.listen(at: path, backlog: Self.backlog, mode: mode)
            } catch {
                guard error.errno == .addressInUse, let abandoned = UnixSocket.abandoned(at: path) else { throw error }
                try UnixSocket.remove(abandoned, at: path)
                return try UnixSocket.listen(at: path, backlog: Self.backlog, mode: mode)
            }
        }
        self.path = path
        isAdopted = false
        identity = try? UnixSocket.Identity(at: path)
    }

    /// Takes over a socket that listens already, for example one that systemd passed.
    ///
    /// - Parameters:
    ///   - rawDescriptor: A socket that nobody else will close.
    ///   - path: The path that it is bound to, if ``removePath()`` is to remove it.
    public init(adopting rawDescriptor: Int32, path: String? = nil) {
        descriptor = OwnedDescriptor(adopting: rawDescriptor)
        self.path = path
        isAdopted = true
        identity = path.flatMap { try? UnixSocket.Identity(at: $0) }
    }

    /// The socket, which stays this value's.
    public var socket: FileDescriptor { FileDescriptor(rawValue: descriptor.rawValue) }

    /// Whether nobody can connect any more, because a server has removed the socket that has it in common with this process.
    ///
    /// Clients that have connected before may still wait: ``HandoffServer/sendAway(from:for:peers:stranded:)``.
    public var isShut: Bool { (try? UnixSocket.refusesMore(at: socket)) ?? false }

    private static var backlog: Int32 { 1024 }

    /// Waits for the next client.
    ///
    /// - Parameter limit: How long; `nil` waits without a limit.
    /// - Returns: The connection, or `nil` if the time is over.
    /// - Throws: ``HandoffError/kernel(_:)``: `EMFILE`, `ENFILE`.
    public func accept(within limit: Duration? = nil) throws(HandoffError) -> HandoffConnection? {
        let accepted = try asHandoffError { () throws(UserfaultError) -> OwnedDescriptor? in
            guard try poll(descriptor.rawValue, until: Deadline(after: limit)) != 0 else { return nil }
            return try UnixSocket.accept(from: descriptor)
        }
        guard let accepted else { return nil }
        return try HandoffConnection(accepted)
    }

    /// Sets the permissions of a socket that somebody else bound to a path.
    ///
    /// - Throws: ``HandoffError/kernel(_:)``: `ENOTSOCK`, `ELOOP` for a link, `EPERM`.
    public static func setMode(_ mode: UInt32, ofSocketAt path: String) throws(HandoffError) {
        try asHandoffError { () throws(UserfaultError) in try UnixSocket.setMode(mode, of: path) }
    }

    /// Removes the path that was bound, so that clients find out at once that nobody listens.
    ///
    /// What somebody else has put there since then stays.
    public func removePath() {
        if let path, let identity { try? UnixSocket.remove(identity, at: path) }
    }
}
