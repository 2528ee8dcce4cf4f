public import SystemPackage
public import UserfaultFD

/// What stands by while another process serves a third one's memory.
///
/// When a pager's process dies, its descriptor closes, and its clients would read **zeros** in place of pages that were
/// not loaded. A guardian holds a duplicate of the descriptor in a process of its own, so that the clients wait instead,
/// and kills the client before it lets go. A pager that stops in order dismisses it.
///
/// The process that serves is at one end of a pair of Unix sockets and sends the descriptor:
///
/// ```swift
/// func serve(_ uffd: consuming UserfaultFD, of client: Owner, guardedOver socket: FileDescriptor) throws {
///     try uffd.send(over: socket, payload: [UInt8(1)].span.bytes)
///     let pager = try Pager(uffd, source: ZeroSource(), owner: client)
///     // … until the client does not need it any more.
///     try pager.stop(.populate)
///     try Guardian.dismiss(over: socket)
/// }
/// ```
///
/// The guardian's process is at the other end, and knows both processes:
///
/// ```swift
/// func guardClient(_ client: Owner, of server: Owner, over socket: FileDescriptor) throws -> Guardian.End {
///     var message = try DescriptorPassing.receive(from: socket)
///     let uffd = try message.descriptors.takeUserfaultFD()
///     return try Guardian(of: uffd, owner: client, pager: server, socket: socket).stand()
/// }
/// ```
public struct Guardian: ~Copyable, Sendable {
    private let uffd: UserfaultFD
    private let owner: Owner
    private let pager: Owner
    private let socket: FileDescriptor?
    private let signs: Signs

    /// How a watch ended.
    public enum End: Hashable, Sendable {
        /// The client's process has ended by itself.
        case ownerEnded
        /// The pager's process has died, and the client was killed.
        case ownerKilled
        /// The pager has stopped in order, see ``Guardian/dismiss(over:)``, and the client lives on.
        case dismissed
    }

    /// A guardian that is to stand.
    ///
    /// - Parameters:
    ///   - uffd: A duplicate of the descriptor that the pager serves.
    ///   - owner: The process whose memory it is.
    ///   - pager: The process that serves it; not this one, with which the guardian would die.
    ///   - socket: A Unix socket to the pager's process, over which it may dismiss the guardian; it stays the caller's.
    /// - Throws: ``PagerError/configuration(_:)`` where the pager's process is this one, ``PagerError/file(_:path:)`` where
    ///   a descriptor cannot be watched.
    public init(
        of uffd: consuming UserfaultFD, owner: Owner, pager: Owner, socket: FileDescriptor? = nil
    ) throws(PagerError) {
        guard !pager.isCurrent else { throw .configuration("a guardian dies with the process that it is in") }
        let signs = try Signs()
        try signs.watch(owner.pidfd, as: .owner)
        try signs.watch(pager.pidfd, as: .pager)
        if let socket { try signs.watch(socket.rawValue, as: .socket) }
        self.uffd = uffd
        self.owner = owner
        self.pager = pager
        self.socket = socket
        self.signs = signs
    }

    /// Tells the guardian at the other end that the client needs none any more: once the pager has stopped.
    ///
    /// In the pager's process. Without it, the client of a pager that has stopped is killed when the process ends.
    ///
    /// - Parameter socket: The Unix socket whose other end the guardian has.
    /// - Throws: ``PagerError/kernel(_:)`` where the guardian is gone.
    public static func dismiss(over socket: FileDescriptor) throws(PagerError) {
        try asPagerError { () throws(UserfaultError) in
            try unsafe DescriptorPassing.send([UInt8(1)].span.bytes, descriptors: [], over: socket)
        }
    }

    /// Waits until it is dismissed or one of the two processes ends, and does not let the client see zeros.
    ///
    /// Blocks its thread.
    public func stand() -> End {
        while true {
            switch signs.wait() {
            case nil:
                continue
            case .owner:
                return .ownerEnded
            case .socket:
                if isDismissed { return .dismissed }
            case .pager:
                // Who stops in order may end before anybody has looked.
                if isDismissed { return .dismissed }
                owner.kill()
                // The descriptor goes with this value: not before the process is gone.
                try? _ = poll(owner.pidfd, until: .never)
                return .ownerKilled
            }
        }
    }

    /// Looks whether a word has come over the socket; one that is closed says nothing any more.
    private var isDismissed: Bool {
        guard let socket else { return false }
        guard let ready = try? poll(socket.rawValue, until: Deadline(after: .zero)), ready != 0 else { return false }
        if let message = try? DescriptorPassing.receive(upTo: 1, from: socket), !message.payload.isEmpty { return true }
        signs.forget(socket)
        return false
    }
}

/// What a guardian waits for.
private struct Signs: ~Copyable {
    enum Sign: UInt64 {
        case owner, pager, socket
    }

    private let set: PollSet

    init() throws(PagerError) {
        set = try asPagerError { () throws(UserfaultError) in try PollSet() }
    }

    func watch(_ descriptor: Int32, as sign: Sign) throws(PagerError) {
        try asFileError { () throws(UserfaultError) in
            try set.add(FileDescriptor(rawValue: descriptor), token: sign.rawValue)
        }
    }

    func forget(_ descriptor: FileDescriptor) { try? set.remove(descriptor) }

    /// Waits without a limit.
    func wait() -> Sign? {
        var batch = ReadyBatch(capacity: 1)
        _ = try? set.wait(into: &batch)
        return batch.next().flatMap { Sign(rawValue: $0.token) }
    }
}
