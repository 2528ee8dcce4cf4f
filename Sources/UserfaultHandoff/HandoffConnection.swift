public import SystemPackage
public import UserfaultFD

/// A connected Unix socket with a known peer.
public struct HandoffConnection: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    /// Who is at the other end.
    public let peer: PeerCredentials

    /// Takes over a connected socket.
    ///
    /// - Parameter rawDescriptor: A socket that nobody else will close. It is closed if this throws.
    /// - Throws: ``HandoffError/kernel(_:)`` if it is not a connected Unix socket.
    public init(adopting rawDescriptor: Int32) throws(HandoffError) {
        try self.init(OwnedDescriptor(adopting: rawDescriptor))
    }

    init(_ descriptor: consuming OwnedDescriptor) throws(HandoffError) {
        let socket = FileDescriptor(rawValue: descriptor.rawValue)
        peer = try asHandoffError { () throws(UserfaultError) in try PeerCredentials(of: socket) }
        self.descriptor = descriptor
    }

    /// Connects to a socket at a path.
    ///
    /// - Throws: ``HandoffError/kernel(_:)``: `ENOENT` or `ECONNREFUSED` if nobody listens there.
    public init(connectingTo path: String) throws(HandoffError) {
        try self.init(try asHandoffError { () throws(UserfaultError) in try UnixSocket.connect(to: path) })
    }

    /// The socket, which stays this value's.
    public var socket: FileDescriptor { FileDescriptor(rawValue: descriptor.rawValue) }

    /// Waits for bytes, and takes what has arrived.
    ///
    /// - Returns: A part of the stream, without bytes at its end; `nil` if the time is over.
    func receive(upTo limit: Int, until deadline: Deadline) throws(HandoffError) -> ReceivedMessage? {
        let number = descriptor.rawValue
        return try asHandoffError { () throws(UserfaultError) -> ReceivedMessage? in
            guard try poll(number, until: deadline) != 0 else { return nil }
            return try DescriptorPassing.receive(upTo: limit, from: FileDescriptor(rawValue: number))
        }
    }

    /// Sends a message, with a userfaultfd and a memory file.
    func send(
        _ bytes: [UInt8], _ uffd: borrowing UserfaultFD, _ file: borrowing Memfd?
    ) throws(HandoffError) {
        var descriptors = [uffd.withUnsafeDescriptor { $0 }]
        if file != nil { descriptors.append(file!.withUnsafeDescriptor { $0 }) }
        try send(bytes, descriptors)
    }

    /// Sends a message.
    func send(_ bytes: [UInt8], _ descriptors: [FileDescriptor] = []) throws(HandoffError) {
        let socket = socket
        try asHandoffError { () throws(UserfaultError) in
            try unsafe DescriptorPassing.send(bytes.span.bytes, descriptors: descriptors, over: socket)
        }
    }
}
