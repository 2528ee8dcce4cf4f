internal import CUserfaultFD
public import SystemPackage

extension UserfaultFD {
    /// Sends a second descriptor of this userfaultfd to another process, which then handles this process' faults.
    ///
    /// This value stays open: as long as it does, pages are not turned to zeros when the other process dies, and their
    /// waiters wait. The corresponding system call is `sendmsg(2)` with `SCM_RIGHTS`.
    ///
    /// - Parameters:
    ///   - socket: A connected Unix socket.
    ///   - payload: What goes with it: the regions, for example. At least one byte.
    /// - Throws: ``UserfaultError``, as ``DescriptorPassing/send(_:descriptors:over:)``.
    public func send(over socket: FileDescriptor, payload: RawSpan) throws(UserfaultError) {
        try DescriptorPassing.send(
            payload, descriptors: [FileDescriptor(rawValue: descriptor.rawValue)], over: socket)
    }

    /// A userfaultfd that another process sent, with what came with it.
    public struct Received: ~Copyable, Sendable {
        /// The sender's userfaultfd: all calls act on the sender's memory.
        public let userfaultFD: UserfaultFD
        /// The bytes of the message.
        public let payload: [UInt8]

        /// Splits the value.
        public consuming func take() -> UserfaultFD {
            userfaultFD
        }
    }

    /// Receives a userfaultfd that another process sent.
    ///
    /// Further descriptors of the message are closed.
    ///
    /// - Parameters:
    ///   - socket: A connected Unix socket.
    ///   - handlesKernelFaults: Whether the sender opened it for kernel-mode faults too; the kernel does not tell.
    ///   - limit: The most bytes of payload to take.
    /// - Throws: ``UserfaultError``: ``UserfaultError/Reason/peerClosed`` at the stream's end,
    ///   ``UserfaultError/Reason/noDescriptor`` where the message carries none, `EINVAL` where it is no userfaultfd,
    ///   and as ``DescriptorPassing/receive(upTo:from:)``.
    public static func receive(
        from socket: FileDescriptor, handlesKernelFaults: Bool = false, upTo limit: Int = 65536
    ) throws(UserfaultError) -> Received {
        let message = try DescriptorPassing.receive(upTo: limit, from: socket)
        let payload = message.payload
        var descriptors = message.takeDescriptors()
        guard let first = descriptors.takeFirst() else {
            let circumstances: UserfaultError.Circumstances = payload.isEmpty ? .peerClosed : .noDescriptor
            throw UserfaultError(
                .receive, errno: payload.isEmpty ? .connectionReset : .badFileDescriptor, circumstances: circumstances)
        }
        return Received(
            userfaultFD: try UserfaultFD(adopting: first, handlesKernelFaults: handlesKernelFaults), payload: payload)
    }
}
