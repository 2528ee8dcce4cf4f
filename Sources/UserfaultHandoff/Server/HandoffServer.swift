internal import Synchronization
internal import SystemPackage
public import UserfaultFD
internal import UserfaultPager

/// Accepts clients at any number of sockets, and takes in what they hand over: one thread for all.
///
/// A peer that is not allowed, sends anything but its protocol's message, or does not finish it in time, is reported and
/// loses its connection, or its life if it would wait for ever (``Stranded``); nobody else notices. What a client hands over is
/// given to its listener's handler, each on a thread of its own that ends with the handler.
public final class HandoffServer: Sendable {
    /// Takes memory that a client handed over, for example by
    /// ``HandedMemory/serve(from:runtime:configuration:options:isPaused:willStart:)``.
    public typealias Handler = @Sendable (consuming HandedMemory) -> Void

    /// What ``remove(_:)`` needs.
    public struct Listening: Hashable, Sendable {
        let token: UInt64
    }

    /// What becomes of a client of Firecracker's protocol that has handed its userfaultfd over and is not served: its
    /// message is wrong or does not end, its descriptors were lost, there is no thread, or the socket is removed.
    ///
    /// Firecracker keeps its descriptor, and its threads would wait for pages for ever. A client of ``HandoffFormat/handoff``
    /// is told.
    public enum Stranded: Sendable {
        /// It is killed, by a pidfd of the process that connected.
        case killed
        /// Its connection is closed.
        case left
    }

    /// A session that ended before its memory could be handed over.
    public struct Report: Sendable {
        /// Who was at the other end; `nil` if nobody could be accepted.
        public let peer: PeerCredentials?
        /// Why.
        public let error: HandoffError
        /// Whether it had sent its userfaultfd: it was a client, which nobody serves.
        public let wasClient: Bool
        /// Whether it was killed, see ``Stranded``; `nil` if it was to be, and this process may not (`CAP_KILL`): it waits for
        /// ever.
        public let wasKilled: Bool?

        init(peer: PeerCredentials?, error: HandoffError, wasClient: Bool = false, wasKilled: Bool? = false) {
            self.peer = peer
            self.error = error
            self.wasClient = wasClient
            self.wasKilled = wasKilled
        }
    }

    private struct Table {
        var listeners: [UInt64: ServerListener] = [:]
        var nextToken: UInt64 = 1
    }

    let limits: HandoffLimits
    private let arrivals: (any HandoffArrivals)?
    let report: @Sendable (Report) -> Void
    /// For connections that are to be ended when no descriptor is free.
    let reserve = DescriptorReserve()
    private let set: PollSet
    private let stopped: EventFD
    private let table = Mutex(Table())
    private let thread = Mutex<NativeThread?>(nil)
    /// Whether the last client could not be accepted, mostly for want of descriptors or memory, which is reported once.
    private let isStuck = Mutex(false)

    private static var stopToken: UInt64 { 0 }

    /// A server without sockets.
    ///
    /// - Parameters:
    ///   - limits: How much each peer may ask for.
    ///   - arrivals: Is told of peers that would wait for ever if this process died (``Stranded/killed``).
    ///   - report: Is told of sessions that ended early, on the server's thread or by ``remove(_:)``.
    /// - Throws: ``HandoffError/kernel(_:)``: `EMFILE`.
    public init(
        limits: HandoffLimits = HandoffLimits(), arrivals: (any HandoffArrivals)? = nil,
        report: @escaping @Sendable (Report) -> Void = { _ in }
    ) throws(HandoffError) {
        self.limits = limits
        self.arrivals = arrivals
        self.report = report
        do throws(UserfaultError) {
            set = try PollSet()
            stopped = try EventFD()
            try set.add(stopped, token: Self.stopToken)
        } catch {
            throw .kernel(error)
        }
    }

    /// Begins to accept clients at a socket.
    ///
    /// - Parameters:
    ///   - socket: Where clients connect.
    ///   - format: What they send.
    ///   - peers: Who is allowed.
    ///   - stranded: What becomes of clients that are allowed, and that are not served.
    ///   - handler: Gets what they hand over.
    /// - Throws: ``HandoffError/kernel(_:)``. The socket is closed then, as by ``remove(_:)`` if this process has made it. Others
    ///   may have one that was adopted, and clients wait there for them.
    @discardableResult
    public func listen(
        _ socket: consuming HandoffListener, for format: HandoffFormat, from peers: PeerPolicy = .everybody,
        stranded: Stranded = .killed, _ handler: @escaping Handler
    ) throws(HandoffError) -> Listening {
        let listener = ServerListener(socket, format, peers, stranded, handler)
        let token = newToken()
        table.withLock { $0.listeners[token] = listener }
        do throws(UserfaultError) {
            try set.add(listener.number, token: token)
        } catch {
            _ = table.withLock { $0.listeners.removeValue(forKey: token) }
            if !listener.socket.isAdopted { sendAway(from: listener) }
            throw .kernel(error)
        }
        return Listening(token: token)
    }

    /// Stops accepting clients at a socket, closes it, and removes the path that it made.
    ///
    /// Clients whose message is not complete lose their connections, and so do those that wait to be accepted, unless
    /// somebody else made the socket; those that were handed over stay. Waits until the handler has returned from all of
    /// them: do not call it from there.
    public func remove(_ listening: Listening) {
        guard let listener = table.withLock({ $0.listeners.removeValue(forKey: listening.token) }) else { return }
        try? set.remove(listener.number)
        if listener.socket.path != nil { sendAway(from: listener) }
        listener.waitUntilHandled()
    }

    /// Serves the sockets on a thread of its own, until ``close()``.
    ///
    /// - Throws: ``HandoffError/kernel(_:)`` if there is no thread.
    public func start() throws(HandoffError) {
        try asHandoffError { () throws(UserfaultError) in
            let started = try NativeThread("uffd-server") { [self] in
                do throws(HandoffError) { try run() } catch { report(Report(peer: nil, error: error)) }
            }
            thread.withLock { $0 = started }
        }
    }

    /// Ends ``run()``, from any thread.
    public func stop() { stopped.signal() }

    /// Stops, waits for the thread of ``start()``, and closes all sockets as ``remove(_:)`` does.
    ///
    /// Clients that were handed over stay.
    public func close() {
        stop()
        thread.withLock { $0.take() }?.join()
        for token in table.withLock({ Array($0.listeners.keys) }) { remove(Listening(token: token)) }
    }

    /// Serves the sockets until ``stop()``, on the calling thread.
    ///
    /// - Throws: ``HandoffError/kernel(_:)`` if waiting fails, which it does only without memory.
    public func run() throws(HandoffError) {
        var conversations = Conversations()
        var batch = ReadyBatch(capacity: 64)
        defer { for token in conversations.tokens { advance(token, of: &conversations, isLast: .closed) } }
        while true {
            do throws(UserfaultError) {
                _ = try set.wait(into: &batch, until: conversations.nextDeadline)
            } catch {
                throw .kernel(error)
            }
            while let ready = batch.next() {
                if ready.token == Self.stopToken { return }
                if conversations[ready.token] != nil {
                    advance(ready.token, of: &conversations)
                } else if let listener = table.withLock({ $0.listeners[ready.token] }) {
                    accept(from: listener, as: ready.token, into: &conversations)
                }
            }
            for token in conversations.tokens {
                guard let conversation = conversations[token] else { continue }
                if conversation.deadline.hasPassed {
                    advance(token, of: &conversations, isLast: .timedOut)
                } else if table.withLock({ $0.listeners[conversation.listener] == nil }) {
                    advance(token, of: &conversations, isLast: .closed)
                }
            }
        }
    }

    private func newToken() -> UInt64 {
        table.withLock { table in
            defer { table.nextToken += 1 }
            return table.nextToken
        }
    }

    private func accept(from listener: ServerListener, as token: UInt64, into conversations: inout Conversations) {
        let connection: HandoffConnection
        do throws(HandoffError) {
            try checkRoom()
            guard let accepted = try listener.socket.accept(within: .zero) else { return }
            connection = accepted
        } catch {
            return wait(because: error, at: listener, token)
        }
        isStuck.withLock { $0 = false }
        reserve.refill()
        let peer = connection.peer
        guard listener.peers.allows(peer) else { return report(Report(peer: peer, error: .refused(peer))) }
        let own = newToken()
        // Before anything else: it may have sent its message already.
        var arrival: Arrival?
        if listener.strandsPeers, let arrivals {
            arrival = Arrival(own, over: connection.socket, keptBy: arrivals)
        }
        let most = limits.connectionsPerUser
        if let oldest = conversations.oldest(of: peer.user, at: token, ifAtLeast: most) {
            advance(oldest, of: &conversations, isLast: .tooManyConnections(limit: most))
        }
        let deadline = Deadline(after: limits.handshakeTime)
        guard let owner = owner(of: connection, strandsPeers: listener.strandsPeers, until: deadline) else { return }
        let conversation = Conversation(
            connection, owner, listener.format, of: token, limits, listener.stranded, arrival)
        do throws(UserfaultError) {
            try set.add(conversation.socket!, token: own)
        } catch {
            return end(conversation, .kernel(error))
        }
        conversations.insert(conversation, as: own)
        // Further clients wait until there is room.
        if conversations.count(ofListener: token) == limits.connections { try? set.remove(listener.number) }
    }

    /// Nobody can be accepted at a socket, which stays ready.
    private func wait(because error: HandoffError, at listener: ServerListener, _ token: UInt64) {
        // It was removed meanwhile.
        guard table.withLock({ $0.listeners[token] != nil }) else { return }
        if listener.socket.isShut {
            // By somebody who has the socket too: that cannot be undone.
            try? set.remove(listener.number)
            return report(Report(peer: nil, error: error))
        }
        let wasStuck = isStuck.withLock { isStuck in
            defer { isStuck = true }
            return isStuck
        }
        if !wasStuck { report(Report(peer: nil, error: error)) }
        // Without a free descriptor the client stays in the queue: look again a little later.
        _ = try? poll(stopped.descriptor.rawValue, until: Deadline(after: .milliseconds(50)))
    }

    /// Throws unless there are as many descriptors as a client takes: it would be accepted, and its own would be lost.
    private func checkRoom(for count: Int = 12) throws(HandoffError) {
        guard count > 0 else { return }
        let held = try asHandoffError { () throws(UserfaultError) in
            try OwnedDescriptor(duplicating: stopped.descriptor.rawValue)
        }
        try checkRoom(for: count - 1)
        try? held.close()
    }

    /// Takes in what has arrived of a conversation.
    ///
    /// - Parameter reason: Why it ends if its message is not complete now; `nil` if it may go on.
    private func advance(_ token: UInt64, of conversations: inout Conversations, isLast reason: HandoffError? = nil) {
        guard let conversation = conversations[token] else { return }
        let socket = conversation.socket
        do throws(HandoffError) {
            if let memory = try conversation.advance() {
                // Before the handler closes it: its number may be another connection's at once.
                if let socket { try? set.remove(socket) }
                hand(memory, of: conversation)
            } else if let reason {
                throw reason
            } else {
                return
            }
        } catch {
            if let socket { try? set.remove(socket) }
            end(conversation, error)
        }
        conversations.remove(token)
        if conversations.count(ofListener: conversation.listener) == limits.connections - 1 {
            // One that is removed at the same time is not added again.
            table.withLock { table in
                if let number = table.listeners[conversation.listener]?.number {
                    try? set.add(number, token: conversation.listener)
                }
            }
        }
    }

    /// Gives memory to the handler of its socket, on a thread of its own.
    private func hand(_ memory: consuming HandedMemory, of conversation: Conversation) {
        // Counted before the listener can be removed.
        let listener = table.withLock { table in
            let listener = table.listeners[conversation.listener]
            listener?.beginHandling()
            return listener
        }
        guard let listener else { return giveUp(memory, conversation.stranded, .closed) }
        let parcel = Parcel(memory)
        let stranded = conversation.stranded
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-handoff") {
                parcel.open(listener.handler)
                listener.endHandling()
            }
        } catch {
            let error = HandoffError.kernel(error)
            parcel.open { [self] in giveUp($0, stranded, error) }
            listener.endHandling()
        }
    }
}

/// Memory on its way to another thread.
private final class Parcel: Sendable {
    private let content: Mutex<HandedMemory?>

    init(_ content: consuming HandedMemory) {
        self.content = Mutex(content)
    }

    func open(_ handler: HandoffServer.Handler) {
        if let memory = content.withLock({ (content: inout sending HandedMemory?) -> sending HandedMemory? in
            content.take()
        }) {
            handler(memory)
        }
    }
}
