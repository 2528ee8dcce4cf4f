public import UserfaultFD

/// A client of this library's own handoff.
public enum HandoffClient {
    /// Hands memory over to the server that listens at a path, and waits until it is served.
    ///
    /// Register the regions first, or leave that to the server. Keep `uffd` open as long as the memory is used: if the
    /// server dies, threads that touch missing pages then wait; without it, they read zeros.
    ///
    /// - Parameters:
    ///   - uffd: The userfaultfd, which stays the caller's.
    ///   - regions: Where the memory is, and its content in the server's source.
    ///   - file: The memory file that the regions map with `MAP_SHARED`, if the server is to fill that.
    ///   - path: Where the server listens.
    ///   - limit: How long to wait for the reply; `nil` waits without a limit.
    /// - Throws: ``HandoffError/notServed(_:)`` with the server's reason; ``HandoffError/kernel(_:)`` if nobody listens;
    ///   ``HandoffError/closedEarly``, ``HandoffError/timedOut``, ``HandoffError/malformed(_:)``.
    public static func handOver(
        _ uffd: borrowing UserfaultFD, regions: [HandedRegion], file: borrowing Memfd? = nil, at path: String,
        within limit: Duration? = .seconds(30)
    ) throws(HandoffError) {
        let connection = try HandoffConnection(connectingTo: path)
        var content = HandoffMessage.Content(features: uffd.enabledFeatures, regions: regions)
        if uffd.handlesKernelFaults { content.flags.insert(.kernelFaults) }
        if file != nil { content.flags.insert(.memoryFile) }
        try connection.send(content.bytes, uffd, file)
        let deadline = Deadline(after: limit)
        var bytes: [UInt8] = []
        while true {
            guard let part = try connection.receive(upTo: 8192, until: deadline) else { throw .timedOut }
            guard !part.payload.isEmpty else { throw .closedEarly }
            bytes += part.payload
            guard let reply = try HandoffReply.read(bytes) else { continue }
            guard reply.isServed else { throw .notServed(reply.text) }
            return
        }
    }
}
