internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

// How clients are ended that nobody serves.

extension HandoffServer {
    /// Ends the connections that wait at a socket that a server has left that has died, and closes the socket.
    ///
    /// - Parameters:
    ///   - socket: It accepts nobody from now on.
    ///   - format: What clients send.
    ///   - peers: Who is allowed.
    ///   - stranded: What becomes of clients that are allowed.
    public func sendAway(
        from socket: consuming HandoffListener, for format: HandoffFormat, peers: PeerPolicy = .everybody,
        stranded: Stranded = .killed
    ) {
        sendAway(from: ServerListener(socket, format, peers, stranded) { _ in })
    }

    /// Ends the connections that wait to be accepted.
    func sendAway(from listener: ServerListener) {
        // A successor finds out from the socket that it is of no use, so that comes before the path is gone.
        try? UnixSocket.refuseMore(at: listener.number)
        listener.socket.removePath()
        // For all of them: there may be a thousand.
        let deadline = Deadline(after: limits.handshakeTime)
        while true {
            reserve.refill()
            let accepted = try? reserve.retrying(until: deadline) { () throws(HandoffError) in
                try listener.socket.accept(within: .zero)
            }
            guard let connection = accepted else { return }
            guard listener.peers.allows(connection.peer),
                let owner = owner(of: connection, strandsPeers: listener.strandsPeers, until: deadline)
            else { continue }
            end(Conversation(connection, owner, listener.format, of: 0, limits, listener.stranded), .closed)
        }
    }

    /// Ends the connection of a peer of Firecracker's protocol whose server has died before it read anything.
    ///
    /// - Returns: Whether the peer was killed: it had sent its userfaultfd. `nil` if it was to be, and this process may not
    ///   (`CAP_KILL`): it waits for ever.
    public static func sendAway(_ connection: consuming HandoffConnection) throws(HandoffError) -> Bool? {
        let owner: Owner
        do throws(PagerError) { owner = try Owner.peer(of: connection.socket) } catch { throw .pager(error) }
        let waiting = Conversation(connection, owner, .firecracker, of: 0, HandoffLimits(), .killed)
        return waiting.end(.closed)
    }

    /// The process of a peer; it is reported if it has ended, or cannot be known.
    ///
    /// - Parameter strandsPeers: Whether the peer would wait for ever if nobody served it.
    func owner(
        of connection: borrowing HandoffConnection, strandsPeers: Bool, until deadline: Deadline
    ) -> Owner? {
        let socket = connection.socket
        do throws(HandoffError) {
            return try reserve.retrying(until: deadline) { () throws(HandoffError) in
                do throws(PagerError) { return try Owner.peer(of: socket) } catch { throw .pager(error) }
            }
        } catch {
            if error.saysThatProcessHasEnded {
                report(Report(peer: connection.peer, error: error))
            } else {
                report(Report(peer: connection.peer, error: error, wasClient: strandsPeers, wasKilled: nil))
            }
            return nil
        }
    }

    /// Ends a conversation, and reports what became of its peer.
    func end(_ conversation: Conversation, _ error: HandoffError) {
        let wasKilled = conversation.end(error)
        report(
            Report(
                peer: conversation.peer, error: error, wasClient: conversation.wasClient,
                wasKilled: wasKilled))
    }

    /// Tells a client whose memory has come that nobody serves it, or kills it.
    func giveUp(_ memory: consuming HandedMemory, _ stranded: Stranded, _ error: HandoffError) {
        guard !memory.isToldWhenRefused, stranded == .killed else {
            report(Report(peer: memory.peer, error: error, wasClient: true))
            return memory.refuse(error.description)
        }
        let owner = memory.owner
        let isKilled = owner.kill()
        report(Report(peer: memory.peer, error: error, wasClient: true, wasKilled: isKilled ? true : nil))
        if isKilled { Remains.keep(memory, until: owner) }
    }
}

/// What a client has handed over that was killed: as long as its process is there, nobody is to read zeros.
final class Remains<Content: ~Copyable & Sendable>: Sendable {
    private let content: Content

    private init(_ content: consuming Content) { self.content = content }

    /// Keeps it until the process has ended, which the kernel may hold up: without holding up the caller, if there is a thread.
    static func keep(_ content: consuming Content, until owner: Owner) {
        let remains = Remains(content)
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-remains") {
                withExtendedLifetime(remains) { _ = try? owner.waitForEnd(within: .seconds(60)) }
            }
        } catch {
            // Others wait for this thread.
            withExtendedLifetime(remains) { _ = try? owner.waitForEnd(within: .seconds(1)) }
        }
    }
}
