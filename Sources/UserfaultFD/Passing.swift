internal import CUserfaultFD
public import SystemPackage

/// Descriptors that came in a message, owned: those that you do not claim are closed automatically.
public struct ReceivedDescriptors: ~Copyable, Sendable {
    private var descriptors: [Int32]

    init(_ descriptors: [Int32]) {
        self.descriptors = descriptors
    }

    deinit {
        for descriptor in descriptors { _ = OwnedDescriptor(adopting: descriptor) }
    }

    /// The number of descriptors that were not taken yet.
    public var count: Int { descriptors.count }

    /// Takes further descriptors over; those above the limit are closed.
    package mutating func append(_ further: consuming ReceivedDescriptors, limit: Int) {
        while descriptors.count < limit, let next = further.takeFirst() { descriptors.append(next) }
    }

    /// None.
    package static var none: ReceivedDescriptors { ReceivedDescriptors([]) }

    /// Takes the first of the descriptors that are left: the caller owns it from now on.
    public mutating func takeFirst() -> Int32? {
        descriptors.isEmpty ? nil : descriptors.removeFirst()
    }

    /// Takes the first of the descriptors that are left, which is a userfaultfd.
    ///
    /// - Parameters:
    ///   - features: What is enabled, if you know: what the sender says it negotiated. Without them it is read from
    ///     `/proc/self/fdinfo`, which needs `/proc` and a descriptor to spare.
    ///   - handlesKernelFaults: Whether the sender opened it for kernel-mode faults too; the kernel does not tell.
    /// - Throws: ``UserfaultError``: ``UserfaultError/Reason/noDescriptor`` if none is left, and as
    ///   ``UserfaultFD/init(adopting:features:handlesKernelFaults:)``. The descriptor then stays here, open, so that
    ///   nothing is lost: name the features, or free a descriptor, and try again.
    public mutating func takeUserfaultFD(
        features: UserfaultFD.Features? = nil, handlesKernelFaults: Bool = false
    ) throws(UserfaultError) -> UserfaultFD {
        guard let first = descriptors.first else {
            throw UserfaultError(.receive, errno: .badFileDescriptor, circumstance: .noDescriptor)
        }
        let adopted = try UserfaultFD(
            adopting: first, features: features, handlesKernelFaults: handlesKernelFaults)
        descriptors.removeFirst()
        return adopted
    }
}

/// A message that came with descriptors.
public struct ReceivedMessage: ~Copyable, Sendable {
    /// The bytes of the message; a stream knows no boundaries, so there may be more to come, or two messages in one.
    ///
    /// Empty at the end of the stream.
    public let payload: [UInt8]

    /// The descriptors, close-on-exec.
    public var descriptors: ReceivedDescriptors

    /// Whether the kernel discarded descriptors (`MSG_CTRUNC`), because this process may not have as many.
    ///
    /// Those that arrived are here. The payload is complete.
    public let isMissingDescriptors: Bool

    private var sender: ProcessHandle?

    init(
        payload: [UInt8], descriptors: consuming ReceivedDescriptors, isMissingDescriptors: Bool,
        sender: consuming ProcessHandle?
    ) {
        self.payload = payload
        self.descriptors = descriptors
        self.isMissingDescriptors = isMissingDescriptors
        self.sender = sender
    }

    /// Takes the process that sent the message: there is one if the socket has the option `SO_PASSPIDFD` or
    /// `SO_PASSCRED`.
    public mutating func takeSender() -> ProcessHandle? {
        sender.take()
    }

    /// Splits the message.
    public consuming func takeDescriptors() -> ReceivedDescriptors {
        descriptors
    }
}

/// Who is at the other end of a connection, as the kernel vouches: the process that connected or listened.
///
/// See ``ProcessHandle/init(peerOf:)`` for a handle that stays valid when the id is reused.
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
    /// - Throws: ``UserfaultError``: `ENOTCONN` for a socket that is not connected; `ENOTSOCK`, `EBADF`.
    public init(of socket: FileDescriptor) throws(UserfaultError) {
        var peer = cuffd_peer()
        _ = try answer(to: .peerCredentials) { unsafe cuffd_peer_credentials(socket.rawValue, &peer) }
        // The kernel answers with nobody, for whom it vouches as little.
        guard peer.pid != 0 || peer.uid != .max else {
            throw UserfaultError(.peerCredentials, errno: .socketNotConnected)
        }
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
    ///   `EINVAL` for an empty payload or too many descriptors, `EPIPE` (``UserfaultError/Reason/peerClosed``), `EBADF`,
    ///   `EAGAIN` from a non-blocking socket.
    public static func send(
        _ payload: RawSpan, descriptors: [FileDescriptor], over socket: FileDescriptor
    ) throws(UserfaultError) {
        guard payload.byteCount > 0, descriptors.count <= limit else {
            throw UserfaultError(.send, errno: .invalidArgument)
        }
        let numbers = descriptors.map(\.rawValue)
        try unsafe payload.withUnsafeBytes { (bytes) throws(UserfaultError) in
            try transferAll(bytes.count, .send) { done in
                unsafe cuffd_send_descriptors(
                    socket.rawValue, bytes.baseAddress! + done, bytes.count - done, numbers,
                    done == 0 ? numbers.count : 0)
            }
        }
    }

    /// Receives bytes and the descriptors that travel with them.
    ///
    /// Every descriptor is close-on-exec. Whatever arrives and is not returned, for this or another reason, is closed.
    /// The corresponding system call is `recvmsg(2)`.
    ///
    /// - Parameters:
    ///   - limit: The most bytes to take, 1 to 16 MiB. Of a longer message of a datagram or seqpacket socket the rest is lost.
    ///   - socket: A connected Unix socket.
    /// - Returns: The message. The end of a stream is a message without bytes. If no descriptor is free, some or all are
    ///   missing: ``ReceivedMessage/isMissingDescriptors``.
    /// - Throws: ``UserfaultError``: `EINVAL` for a limit out of its range; `EAGAIN` from a non-blocking socket;
    ///   `ECONNRESET`.
    public static func receive(
        upTo limit: Int = 65536, from socket: FileDescriptor
    ) throws(UserfaultError) -> ReceivedMessage {
        guard (1...16 << 20).contains(limit) else { throw UserfaultError(.receive, errno: .invalidArgument) }
        var control = cuffd_control()
        var received = 0
        let payload = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, used in
            repeat {
                received = unsafe cuffd_receive_descriptors(socket.rawValue, buffer.baseAddress, limit, &control)
            } while received == -Int(Errno.interrupted.rawValue)
            used = max(0, received)
        }
        // Owned before anything can throw.
        let descriptors = ReceivedDescriptors(numbers(of: control))
        let sender = Self.sender(control)
        _ = try answer(to: .receive) { received }
        return ReceivedMessage(
            payload: payload, descriptors: descriptors, isMissingDescriptors: control.truncated != 0, sender: sender)
    }

    /// A process that has ended meanwhile is nobody.
    private static func sender(_ control: cuffd_control) -> ProcessHandle? {
        if control.pidfd >= 0 { return ProcessHandle(received: OwnedDescriptor(adopting: control.pidfd)) }
        return control.pid > 0 ? try? ProcessHandle(id: control.pid) : nil
    }

    private static func numbers(of control: cuffd_control) -> [Int32] {
        unsafe withUnsafeBytes(of: control.descriptors) { bytes in
            unsafe Array(bytes.bindMemory(to: Int32.self).prefix(Int(control.count)))
        }
    }
}
