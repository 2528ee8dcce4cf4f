internal import Synchronization

/// The connection of a client that has handed memory over, on which it hears once what became of that.
///
/// Take it from ``HandedMemory/client`` before the memory is served, to refuse a client whose memory could not be served.
public final class ClientReply: Sendable {
    private let connection: HandoffConnection
    private let isAnswered = Mutex(false)
    private let arrival: Arrival?

    /// Whether the client's protocol has replies: if not, a client that is refused waits for ever.
    public let isHeard: Bool

    init(_ connection: consuming HandoffConnection, _ format: HandoffFormat, _ arrival: Arrival?) {
        isHeard = format == .handoff
        self.connection = connection
        self.arrival = arrival
    }

    /// Says that whoever keeps descriptors has the client's: its arrival is over, as ``HandoffArrivals`` hears.
    ///
    /// Otherwise that is so when nobody has this value any more.
    public func endArrival() { arrival?.end() }

    /// Tells the client why its memory is not served, unless it was told something before.
    public func refuse(_ reason: String) { try? send(.refused(reason)) }

    /// Tells the client that its memory is served.
    func accept() throws(HandoffError) { try send(.served) }

    private func send(_ reply: HandoffReply) throws(HandoffError) {
        let isFirst = isAnswered.withLock { isAnswered in
            defer { isAnswered = true }
            return !isAnswered
        }
        if isHeard, isFirst { try connection.send(reply.bytes) }
    }
}
