internal import SystemPackage
internal import UserfaultFD

/// A connection whose message has not arrived yet: only the server's thread has it.
final class Conversation {
    /// When the peer must be done.
    let deadline: Deadline
    /// Who is at the other end.
    let peer: PeerCredentials
    /// The listener's token.
    let listener: UInt64

    private let format: HandoffFormat
    private let limits: HandoffLimits
    private let number: FileDescriptor
    private var connection: HandoffConnection?
    private var parser: HandoffParser
    private var descriptors = ReceivedDescriptors.none
    private var isMissingDescriptors = false

    /// The most descriptors that belong to one client: its userfaultfd and the files of its memory.
    private static let descriptorLimit = 4

    init(
        _ connection: consuming HandoffConnection, _ format: HandoffFormat, of listener: UInt64, _ limits: HandoffLimits
    ) {
        deadline = Deadline(after: limits.handshakeTime)
        self.listener = listener
        self.format = format
        self.limits = limits
        peer = connection.peer
        number = connection.socket
        self.connection = consume connection
        parser = HandoffParser(format, limits: limits)
    }

    /// Takes in what has arrived.
    ///
    /// - Returns: The memory once the message is complete; the connection goes with it.
    func advance() throws(HandoffError) -> HandedMemory? {
        guard connection != nil else { return nil }
        guard var part = try connection!.receive(upTo: 64 << 10, until: Deadline(after: .zero)) else { return nil }
        isMissingDescriptors = isMissingDescriptors || part.isMissingDescriptors
        let payload = part.payload
        var received = ReceivedDescriptors.none
        swap(&received, &part.descriptors)
        descriptors.append(received, limit: Self.descriptorLimit)
        guard !payload.isEmpty else { throw .closedEarly }
        guard let content = try parser.consume(payload) else { return nil }
        var descriptors = ReceivedDescriptors.none
        swap(&descriptors, &self.descriptors)
        let parts = try HandedMemory.Parts(
            content, descriptors, of: number, isMissingDescriptors: isMissingDescriptors)
        return HandedMemory(content, format, parts, connection.take()!)
    }

    /// Tells the peer why its memory is not served, if its protocol has a word for that.
    func refuse(_ error: HandoffError) {
        guard format == .handoff, connection != nil else { return }
        try? connection!.send(HandoffReply.refused(error.description).bytes)
    }

    /// The socket to wait for.
    var socket: FileDescriptor? {
        if connection == nil { return nil }
        return number
    }
}
