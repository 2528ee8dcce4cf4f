internal import CUserfaultFD
public import SystemPackage

/// Descriptors that came in a message, owned: what nobody takes is closed.
public struct ReceivedDescriptors: ~Copyable, Sendable {
    private var descriptors: [Int32]

    init(_ descriptors: [Int32]) {
        self.descriptors = descriptors
    }

    deinit {
        for descriptor in descriptors { _ = cuffd_close(descriptor) }
    }

    /// The number of descriptors that were not taken yet.
    public var count: Int { descriptors.count }

    /// Takes the first of the descriptors that are left: the caller owns it from now on.
    public mutating func takeFirst() -> Int32? {
        descriptors.isEmpty ? nil : descriptors.removeFirst()
    }
}

/// A message that came with descriptors.
public struct ReceivedMessage: ~Copyable, Sendable {
    /// The bytes of the message; a stream knows no boundaries, so there may be more to come, or two messages in one.
    public let payload: [UInt8]
    /// The descriptors, close-on-exec.
    public var descriptors: ReceivedDescriptors

    /// Splits the message.
    public consuming func takeDescriptors() -> ReceivedDescriptors {
        descriptors
    }
}

/// Who is at the other end of a connection, as the kernel vouches: the process that connected or listened.
public struct PeerCredentials: Hashable, Sendable {
    /// The peer's process id.
    public let process: Int32
    /// The peer's effective user id.
    public let user: UInt32
    /// The peer's effective group id.
    public let group: UInt32

    /// Asks who is at the other end.
    ///
    /// The corresponding socket option is `SO_PEERCRED`.
    ///
    /// - Parameter socket: A connected Unix socket.
    /// - Throws: ``UserfaultError``.
    public init(of socket: FileDescriptor) throws(UserfaultError) {
        var peer = cuffd_peer()
        let answer = unsafe cuffd_peer_credentials(socket.rawValue, &peer)
        guard answer >= 0 else { throw UserfaultError(.peerCredentials, answer: answer) }
        process = peer.pid
        user = peer.uid
        group = peer.gid
    }
}

/// Descriptors in messages over Unix sockets.
public enum DescriptorPassing {
    /// The most descriptors that one message carries.
    public static let limit = Int(CUFFD_MAX_DESCRIPTORS)

    /// Sends bytes together with descriptors, which stay the sender's.
    ///
    /// The descriptors travel with the first byte; the rest is sent on. A peer that is gone makes an error and no
    /// signal. The corresponding system call is `sendmsg(2)` with `SCM_RIGHTS`.
    ///
    /// - Parameters:
    ///   - payload: At least one byte.
    ///   - descriptors: At most ``limit``.
    ///   - socket: A connected Unix socket.
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how much of the payload went out:
    ///   `EINVAL` for an empty payload or too many descriptors, `EPIPE` (``UserfaultError/Reason/peerClosed``), `EBADF`.
    public static func send(
        _ payload: RawSpan, descriptors: [FileDescriptor], over socket: FileDescriptor
    ) throws(UserfaultError) {
        guard payload.byteCount > 0, descriptors.count <= limit else {
            throw UserfaultError(.send, errno: .invalidArgument)
        }
        let numbers = descriptors.map(\.rawValue)
        try unsafe payload.withUnsafeBytes { (bytes) throws(UserfaultError) in
            var done = 0
            while done < bytes.count {
                let answer = unsafe cuffd_send_descriptors(
                    socket.rawValue, bytes.baseAddress! + done, bytes.count - done, numbers,
                    done == 0 ? numbers.count : 0)
                if answer == -Int(Errno.interrupted.rawValue) { continue }
                guard answer >= 0 else { throw UserfaultError(.send, answer: answer, bytesCompleted: done) }
                done += answer
            }
        }
    }

    /// Receives bytes and the descriptors that travel with them.
    ///
    /// Every descriptor is close-on-exec, and closed where this throws. The corresponding system call is `recvmsg(2)`.
    ///
    /// - Parameters:
    ///   - limit: The most bytes to take.
    ///   - socket: A connected Unix socket.
    /// - Returns: The message. A stream's end is a message without bytes.
    /// - Throws: ``UserfaultError``: ``UserfaultError/Reason/descriptorsTruncated`` where the kernel discarded
    ///   descriptors; `EAGAIN` from a non-blocking socket; `ECONNRESET`.
    public static func receive(
        upTo limit: Int = 65536, from socket: FileDescriptor
    ) throws(UserfaultError) -> ReceivedMessage {
        precondition(limit > 0, "there must be room for at least one byte")
        var numbers = [Int32](repeating: -1, count: Self.limit)
        var count = 0
        var truncated: CInt = 0
        var answer = 0
        let payload = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, used in
            repeat {
                answer = unsafe cuffd_receive_descriptors(
                    socket.rawValue, buffer.baseAddress, limit, &numbers, &count, &truncated)
            } while answer == -Int(Errno.interrupted.rawValue)
            used = max(0, answer)
        }
        let descriptors = ReceivedDescriptors(Array(numbers.prefix(count)))
        guard answer >= 0 else { throw UserfaultError(.receive, answer: answer) }
        guard truncated == 0 else {
            throw UserfaultError(.receive, errno: .messageTooLong, circumstances: .descriptorsTruncated)
        }
        return ReceivedMessage(payload: payload, descriptors: descriptors)
    }
}
