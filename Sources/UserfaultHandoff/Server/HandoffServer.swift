internal import Synchronization
internal import SystemPackage
public import UserfaultFD

/// Accepts clients at any number of sockets, and takes in what they hand over: one thread for all.
///
/// A peer that is not allowed, sends anything but its protocol's message, or does not finish it in time, is reported and
/// loses its connection; nobody else notices. What a client hands over is given to its listener's handler, each on a
/// thread of its own that ends with the handler.
public final class HandoffServer: Sendable {
    /// Takes memory that a client handed over, for example by
    /// ``HandedMemory/serve(from:runtime:configuration:options:isPaused:willStart:)``.
    public typealias Handler = @Sendable (consuming HandedMemory) -> Void

    /// What ``remove(_:)`` needs.
    public struct Listening: Hashable, Sendable {
        let token: UInt64
    }

    /// A session that ended before its memory could be handed over.
    public struct Report: Sendable {
        /// Who was at the other end; `nil` if nobody could be accepted.
        public let peer: PeerCredentials?
        /// Why.
        public let error: HandoffError
    }

    private final class Listener: Sendable {
        let socket: HandoffListener
        let format: HandoffFormat
        let peers: PeerPolicy
        let handler: Handler
        /// Clients that were handed over, and that the handler has not returned from.
        let handled = Mutex(0)
        /// Wakes who waits until there is none.
        let changes = FutexWord()

        init(
            _ socket: consuming HandoffListener, _ format: HandoffFormat, _ peers: PeerPolicy,
            _ handler: @escaping Handler
        ) {
            self.socket = socket
            self.format = format
            self.peers = peers
            self.handler = handler
        }

        func beginHandling() { handled.withLock { $0 += 1 } }

        func endHandling() {
            handled.withLock { $0 -= 1 }
            changes.signal()
        }

        func waitUntilHandled() {
            while true {
                let seen = changes.changes
                if handled.withLock({ $0 == 0 }) { return }
                changes.wait(while: seen, until: .never)
            }
        }
    }

    private struct Table {
        var listeners: [UInt64: Listener] = [:]
        var nextToken: UInt64 = 1
    }

    private let limits: HandoffLimits
    private let report: @Sendable (Report) -> Void
    private let set: PollSet
    private let stopped: EventFD
    private let table = Mutex(Table())
    private let thread = Mutex<NativeThread?>(nil)

    private static var stopToken: UInt64 { 0 }

    /// A server without sockets.
    ///
    /// - Parameters:
    ///   - limits: How much each peer may ask for.
    ///   - report: Is told of sessions that ended early, on the server's thread.
    /// - Throws: ``HandoffError/kernel(_:)``: `EMFILE`.
    public init(
        limits: HandoffLimits = HandoffLimits(), report: @escaping @Sendable (Report) -> Void = { _ in }
    ) throws(HandoffError) {
        self.limits = limits
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
    ///   - handler: Gets what they hand over.
    /// - Throws: ``HandoffError/kernel(_:)``.
    @discardableResult
    public func listen(
        _ socket: consuming HandoffListener, for format: HandoffFormat, from peers: PeerPolicy = .everybody,
        _ handler: @escaping Handler
    ) throws(HandoffError) -> Listening {
        let listener = Listener(socket, format, peers, handler)
        let token = newToken()
        table.withLock { $0.listeners[token] = listener }
        do throws(UserfaultError) {
            try set.add(FileDescriptor(rawValue: listener.socket.descriptor.rawValue), token: token)
        } catch {
            _ = table.withLock { $0.listeners.removeValue(forKey: token) }
            throw .kernel(error)
        }
        return Listening(token: token)
    }

    /// Stops accepting clients at a socket, closes it, and removes the path that it made.
    ///
    /// Clients whose message is not complete lose their connections; those that were handed over stay. Waits until the
    /// handler has returned from all of them: do not call it from there.
    public func remove(_ listening: Listening) {
        guard let listener = table.withLock({ $0.listeners.removeValue(forKey: listening.token) }) else { return }
        try? set.remove(FileDescriptor(rawValue: listener.socket.descriptor.rawValue))
        listener.socket.removePath()
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
        var conversations: [UInt64: Conversation] = [:]
        var batch = ReadyBatch(capacity: 64)
        defer { for conversation in conversations.values { forget(conversation) } }
        while true {
            do throws(UserfaultError) {
                let next = conversations.values.min { $0.deadline.instant < $1.deadline.instant }?.deadline ?? .never
                _ = try set.wait(into: &batch, until: next)
            } catch {
                throw .kernel(error)
            }
            while let ready = batch.next() {
                if ready.token == Self.stopToken { return }
                if let conversation = conversations[ready.token] {
                    if advance(conversation) { conversations.removeValue(forKey: ready.token) }
                } else if let listener = table.withLock({ $0.listeners[ready.token] }) {
                    accept(from: listener, as: ready.token, into: &conversations)
                }
            }
            for (token, conversation) in conversations {
                if conversation.deadline.hasPassed {
                    end(conversation, .timedOut)
                } else if table.withLock({ $0.listeners[conversation.listener] == nil }) {
                    forget(conversation)
                } else {
                    continue
                }
                conversations.removeValue(forKey: token)
            }
        }
    }

    private func newToken() -> UInt64 {
        table.withLock { table in
            defer { table.nextToken += 1 }
            return table.nextToken
        }
    }

    private func accept(from listener: Listener, as token: UInt64, into conversations: inout [UInt64: Conversation]) {
        do throws(HandoffError) {
            guard let connection = try listener.socket.accept(within: .zero) else { return }
            let peer = connection.peer
            guard listener.peers.allows(peer) else { return report(Report(peer: peer, error: .refused(peer))) }
            guard conversations.count < limits.connections else {
                return report(Report(peer: peer, error: .tooManyConnections(limit: limits.connections)))
            }
            let conversation = Conversation(connection, listener.format, of: token, limits)
            let own = newToken()
            try asHandoffError { () throws(UserfaultError) in try set.add(conversation.socket!, token: own) }
            conversations[own] = conversation
        } catch {
            report(Report(peer: nil, error: error))
            // Without a free descriptor the client stays in the queue, and the socket ready: look again a little later.
            if error.isShortage {
                _ = try? poll(stopped.descriptor.rawValue, until: Deadline(after: .milliseconds(50)))
            }
        }
    }

    /// - Returns: Whether the conversation has ended.
    private func advance(_ conversation: Conversation) -> Bool {
        do throws(HandoffError) {
            let socket = conversation.socket
            guard let memory = try conversation.advance() else { return false }
            if let socket { try? set.remove(socket) }
            // Counted before the listener can be removed.
            let listener = table.withLock { table in
                let listener = table.listeners[conversation.listener]
                listener?.beginHandling()
                return listener
            }
            if let listener { try handle(memory, listener) }
        } catch {
            end(conversation, error)
        }
        return true
    }

    private func handle(_ memory: consuming HandedMemory, _ listener: Listener) throws(HandoffError) {
        let parcel = Parcel(memory)
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-handoff") {
                parcel.open(listener.handler)
                listener.endHandling()
            }
        } catch {
            listener.endHandling()
            throw .kernel(error)
        }
    }

    private func end(_ conversation: Conversation, _ error: HandoffError) {
        report(Report(peer: conversation.peer, error: error))
        conversation.refuse(error)
        forget(conversation)
    }

    /// The connection closes with the conversation.
    private func forget(_ conversation: Conversation) {
        if let socket = conversation.socket { try? set.remove(socket) }
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

extension HandoffError {
    /// Whether this process may not open more files.
    var isShortage: Bool {
        guard case .kernel(let error) = self else { return false }
        return [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory].contains(error.errno)
    }
}
