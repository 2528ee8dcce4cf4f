public import SystemPackage

extension UserfaultFD {
    /// Sends a second descriptor of this userfaultfd to another process, which then handles this process' faults.
    ///
    /// The other process takes it from the message with ``ReceivedDescriptors/takeUserfaultFD(features:handlesKernelFaults:)``.
    /// This value stays open: as long as it does, pages are not turned to zeros when the other process dies, and the
    /// threads that wait for them go on waiting. The corresponding system call is `sendmsg(2)` with `SCM_RIGHTS`.
    ///
    /// - Parameters:
    ///   - socket: A connected Unix socket.
    ///   - payload: What goes with it: the regions and the features, for example. At least one byte.
    /// - Throws: ``UserfaultError``, as ``DescriptorPassing/send(_:descriptors:over:)``.
    public func send(over socket: FileDescriptor, payload: RawSpan) throws(UserfaultError) {
        try DescriptorPassing.send(
            payload, descriptors: [FileDescriptor(rawValue: descriptor.rawValue)], over: socket)
    }
}
