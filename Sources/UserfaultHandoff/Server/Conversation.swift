internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// A connection whose message has not arrived yet: one thread has it.
final class Conversation {
    /// When the peer must be done.
    let deadline: Deadline
    /// Who is at the other end.
    let peer: PeerCredentials
    /// The listener's token.
    let listener: UInt64
    /// What becomes of the peer if it is not served.
    let stranded: HandoffServer.Stranded

    private let format: HandoffFormat
    private let limits: HandoffLimits
    private let number: FileDescriptor
    /// Known from the beginning: at the end there may be no descriptor for it.
    private let owner: Owner
    private var connection: HandoffConnection?
    private var parser: HandoffParser
    private let arrival: Arrival?
    private var hasBegun = false
    private var descriptors = ReceivedDescriptors.none
    private var isMissingDescriptors = false
    /// Whether descriptors have come, or were lost because this process may not open more files.
    private var hasReceivedDescriptors = false
    private var isComplete = false
    /// Whether the peer has handed something over, once the conversation has ended: it believes that it is served.
    private(set) var wasClient = false

    init(
        _ connection: consuming HandoffConnection, _ owner: Owner, _ format: HandoffFormat, of listener: UInt64,
        _ limits: HandoffLimits, _ stranded: HandoffServer.Stranded, _ arrival: Arrival? = nil
    ) {
        self.arrival = arrival
        self.owner = owner
        deadline = Deadline(after: limits.handshakeTime)
        self.listener = listener
        self.format = format
        self.limits = limits
        self.stranded = stranded
        peer = connection.peer
        number = connection.socket
        self.connection = consume connection
        parser = HandoffParser(format, limits: limits)
    }

    /// Takes in what has arrived.
    ///
    /// - Returns: The memory once the message is complete; the connection goes with it.
    func advance() throws(HandoffError) -> HandedMemory? {
        guard connection != nil, let payload = try receive() else { return nil }
        guard !payload.isEmpty else { throw .closedEarly }
        guard let content = try parser.consume(payload) else { return nil }
        isComplete = true
        let parts = try HandedMemory.Parts(content, &descriptors, isMissingDescriptors: isMissingDescriptors)
        descriptors = .none
        return HandedMemory(content, format, parts, of: owner, connection.take()!, arrival)
    }

    /// Keeps the descriptors that come, as many as the protocol needs; the others are closed at once.
    private func receive() throws(HandoffError) -> [UInt8]? {
        if !hasBegun {
            hasBegun = true
            arrival?.willRead(from: FileDescriptor(rawValue: owner.pidfd))
        }
        guard var part = try connection!.receive(upTo: 64 << 10, until: Deadline(after: .zero)) else { return nil }
        isMissingDescriptors = isMissingDescriptors || part.isMissingDescriptors
        hasReceivedDescriptors = hasReceivedDescriptors || part.isMissingDescriptors || part.descriptors.count > 0
        var received = ReceivedDescriptors.none
        swap(&received, &part.descriptors)
        descriptors.append(received, limit: format.descriptorLimit)
        return part.payload
    }

    /// Ends the conversation: tells the peer why, or kills it if it would wait for ever.
    ///
    /// - Returns: Whether it was killed; `nil` if it was to be, and this process may not.
    @discardableResult
    func end(_ error: HandoffError) -> Bool? {
        guard connection != nil else { return false }
        if format == .handoff {
            wasClient = hasReceivedDescriptors
            try? connection!.send(HandoffReply.refused(error.description).bytes)
            return false
        }
        return stranded == .killed ? killIfStranded() : false
    }

    /// Kills a peer that has sent its userfaultfd, or whatever it takes for that with a message that is complete.
    ///
    /// What it sends from now on does not arrive, so that it finds out itself.
    private func killIfStranded() -> Bool? {
        try? UnixSocket.refuseMore(at: number)
        while let payload = try? receive(), !payload.isEmpty {}
        guard hasReceivedDescriptors else { return false }
        let uffd = try? descriptors.takeUserfaultFD(features: [])
        wasClient = isComplete || isMissingDescriptors || uffd != nil
        guard wasClient else { return false }
        guard owner.kill() else { return nil }
        if let uffd { Remains.keep(uffd, until: owner) }
        return true
    }

    /// The socket to wait for.
    var socket: FileDescriptor? {
        if connection == nil { return nil }
        return number
    }
}

extension HandoffFormat {
    /// The most descriptors that belong to one client: its userfaultfd, and the file of its memory.
    fileprivate var descriptorLimit: Int { self == .handoff ? 2 : 1 }
}
