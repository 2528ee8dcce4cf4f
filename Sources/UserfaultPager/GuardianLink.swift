internal import Synchronization
public import SystemPackage
public import UserfaultFD

/// The end of a pair of Unix sockets at which a process that serves clients has them guarded by a ``Guardian``.
///
/// ```swift
/// func serve(_ uffd: consuming UserfaultFD, of client: Owner, guardedOver link: GuardianLink) throws {
///     let watch = try link.guard(uffd, of: client)
///     let pager = try Pager(uffd, source: ZeroSource(), owner: client)
///     // … until the client does not need it any more.
///     try pager.stop(.populate)
///     try link.dismiss(watch)
/// }
/// ```
public final class GuardianLink: Sendable {
    /// A client that is guarded.
    public struct Watch: Hashable, Sendable {
        fileprivate let id: UInt64
    }

    private let socket: FileDescriptor
    /// How many clients there were; held while the guardian is asked.
    private let clients = Mutex<UInt64>(0)

    /// A link to the guardian at the other end of a socket.
    ///
    /// - Parameter socket: A Unix stream socket that is used for nothing else. It stays the caller's, and open for as long
    ///   as the link is used.
    public init(over socket: FileDescriptor) {
        self.socket = socket
    }

    /// Has a client guarded: from now on it is killed if this process ends before it is dismissed.
    ///
    /// - Parameters:
    ///   - uffd: The client's userfaultfd; the guardian gets a duplicate.
    ///   - owner: The client.
    ///   - limit: How long to wait for the guardian's answer.
    /// - Throws: ``PagerError/configuration(_:)`` for this process itself; if the client is not guarded,
    ///   ``PagerError/notGuarded(_:)`` with `EMFILE` if the guardian has no descriptor free, `ENOSPC` if it may watch no
    ///   more, `EPIPE` if it is gone, `ETIMEDOUT` at the limit.
    public func `guard`(
        _ uffd: borrowing UserfaultFD, of owner: Owner, within limit: Duration = .seconds(10)
    ) throws(PagerError) -> Watch {
        guard !owner.isCurrent else { throw .configuration("a process that serves itself ends with its pager") }
        let descriptors = uffd.withUnsafeDescriptor { [$0, FileDescriptor(rawValue: owner.pidfd)] }
        let deadline = Deadline(after: limit)
        return try clients.withLock { (clients) throws(PagerError) in
            clients += 1
            let id = clients
            let refusal: Errno?
            do throws(UserfaultError) {
                try GuardianMessage(.guard, id).send(descriptors, over: socket)
                refusal = try answer(to: id, until: deadline)
            } catch {
                refusal = error.errno
            }
            if let refusal { throw .notGuarded(refusal) }
            return Watch(id: id)
        }
    }

    /// Tells the guardian that a client needs none any more: once its pager has stopped.
    ///
    /// - Throws: ``PagerError/notGuarded(_:)`` with `EPIPE` if the guardian is gone.
    public func dismiss(_ watch: Watch) throws(PagerError) {
        try clients.withLock { (_) throws(PagerError) in
            do throws(UserfaultError) {
                try GuardianMessage(.dismiss, watch.id).send(over: socket)
            } catch {
                throw .notGuarded(error.errno)
            }
        }
    }

    /// - Returns: Why the client is not guarded; `nil` if it is.
    private func answer(to id: UInt64, until deadline: Deadline) throws(UserfaultError) -> Errno? {
        while true {
            guard try poll(socket.rawValue, until: deadline) != 0 else { return .timedOut }
            let message = try DescriptorPassing.receive(upTo: GuardianMessage.bytes, from: socket)
            guard let answer = GuardianMessage(bytes: message.payload) else { return .brokenPipe }
            // One that came too late is passed over.
            guard answer.first == id else { continue }
            return answer.second == 0 ? nil : Errno(rawValue: CInt(truncatingIfNeeded: answer.second))
        }
    }
}

/// Two words between a guardian and the process that it guards: of one host, and of one program or two of one version.
struct GuardianMessage {
    enum Request: UInt64 {
        case `guard` = 1
        case dismiss = 2
    }

    static let bytes = 16

    let first: UInt64
    let second: UInt64

    init(_ first: UInt64, _ second: UInt64) {
        self.first = first
        self.second = second
    }

    init(_ request: Request, _ client: UInt64) { self.init(request.rawValue, client) }

    /// - Returns: `nil` for the end of the stream, and for what is no message.
    init?(bytes: [UInt8]) {
        guard bytes.count == Self.bytes else { return nil }
        (first, second) = unsafe bytes.withUnsafeBytes { bytes in
            unsafe (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
    }

    func send(_ descriptors: [FileDescriptor] = [], over socket: FileDescriptor) throws(UserfaultError) {
        try unsafe DescriptorPassing.send([first, second].span.bytes, descriptors: descriptors, over: socket)
    }
}
