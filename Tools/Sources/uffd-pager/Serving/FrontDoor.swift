import ArgumentParser
import Glibc
import Logging
import Synchronization
import SystemPackage
import UserfaultFD
import UserfaultHandoff

/// The sockets at which machines connect, and one thread for all of them.
final class FrontDoor: Sendable {
    private let server: HandoffServer
    private let keepers: Keepers?
    /// What a client takes while it is taken over, and requests beside it.
    private static let descriptorsOfOneClient = 24
    /// With fewer, the guard and the keeper cannot keep those of a client.
    private static let leastDescriptors: UInt = 40
    /// Names under which sockets are kept.
    private let kept = Mutex<Set<String>>([])

    /// Numbers of systemd's sockets at which machines listen, by the names of the machines.
    private let lent = Mutex<[String: Int32]>([:])
    private let logger: Logger

    /// Clients that were told or killed before their memory could be taken over.
    private let lost: Counter

    init(keptBy keepers: Keepers?, logger: Logger, limits: HandoffLimits = HandoffLimits()) throws {
        let lost = Counter()
        let refusals = Refusals("connections ended before memory was handed over", logger)
        self.keepers = keepers
        self.lost = lost
        self.logger = logger
        do {
            server = try HandoffServer(limits: limits, arrivals: keepers) { report in
                if report.wasClient {
                    keepers?.noteFailure()
                    lost.increment()
                }
                Self.log(report, logger, refusals)
            }
        } catch {
            throw Failure(.system, "no server: \(error)")
        }
    }

    private static func log(_ report: HandoffServer.Report, _ logger: Logger, _ refusals: Refusals) {
        var metadata: Logger.Metadata = ["error": "\(report.error)"]
        if let peer = report.peer { metadata["process"] = "\(peer.process)" }
        if report.wasClient, report.wasKilled != false {
            logger.error("a client cannot be served, \(Fate(wasKilled: report.wasKilled == true))", metadata: metadata)
        } else if report.wasClient {
            logger.error("a client cannot be served", metadata: metadata)
        } else if report.peer == nil {
            logger.error("no client can be accepted; this is logged once", metadata: metadata)
        } else if case .refused = report.error {
            // Whoever may connect can do so as often as he likes.
            refusals.note("\(report.error)")
        } else {
            logger.warning("a connection ended before memory was handed over", metadata: metadata)
        }
    }

    /// Clients that were not served, because of what they sent or what this process could not have.
    var failures: Int { lost.value }

    /// Accepts clients of a machine at a path.
    ///
    /// - Parameters:
    ///   - mode: The permissions of the socket, which one that is passed has already.
    ///   - description: What a successor needs to know of the machine, if its command line does not say.
    @discardableResult
    func open(
        _ machine: String, at path: String, mode: UInt32? = nil, for format: HandoffFormat, from peers: PeerPolicy,
        description: [UInt8]? = nil, _ handler: @escaping HandoffServer.Handler
    ) throws -> HandoffServer.Listening {
        try SocketPath.check(path, .uncreatable)
        let name = KeptName.machine(machine)
        _ = kept.withLock { $0.insert(name) }
        let wasKept = PassedDescriptors.names.contains(name)
        sendAway(from: machine, at: path, for: format, peers)
        let passed = PassedDescriptors.takeSocket(of: machine, at: path)
        let isSystemds = passed?.lent != nil
        do {
            let listener =
                try passed.map { HandoffListener(adopting: $0.number, path: isSystemds ? nil : path) }
                ?? HandoffListener(path: path, mode: mode)
            // Of a machine at systemd's socket, the description stays.
            if passed == nil || isSystemds && !(wasKept && description != nil) {
                // Systemd passes its own sockets to every server.
                let own = isSystemds ? nil : listener.socket.rawValue
                do {
                    try keep(name, own, at: path, description, isReplacing: wasKept)
                } catch {
                    // Clients may have come meanwhile. At systemd's socket, they can wait.
                    if !isSystemds { server.sendAway(from: listener, for: format, peers: peers) }
                    throw error
                }
            }
            let listening = try server.listen(listener, for: format, from: peers, handler)
            if let lent = passed?.lent { self.lent.withLock { $0[name] = lent } }
            return listening
        } catch {
            if let lent = passed?.lent { PassedDescriptors.giveBack(lent) }
            throw Failure(.uncreatable, SocketPath.complaint(path, error))
        }
    }

    /// Ends what waits at sockets of a machine at which nobody is to connect any more.
    private func sendAway(from machine: String, at path: String, for format: HandoffFormat, _ peers: PeerPolicy) {
        for socket in PassedDescriptors.takeUselessSockets(of: machine, at: path) {
            if socket.isReplaced {
                logger.error(
                    "the socket of a machine is no longer at its path: somebody has removed or replaced it",
                    metadata: ["machine": "\(machine)", "socket": "\(path)"])
            }
            server.sendAway(
                from: HandoffListener(adopting: socket.number, path: socket.path), for: format, peers: peers)
        }
    }

    /// Has the socket and the description of a machine kept.
    ///
    /// - Parameters:
    ///   - socket: The one at the path; `nil` for systemd's, which it passes to every server.
    ///   - isReplacing: Whether others are kept, with a socket that is of no use. A machine whose new socket cannot be kept keeps
    ///     its description, since it may have clients.
    private func keep(
        _ name: String, _ socket: Int32?, at path: String, _ description: [UInt8]?, isReplacing: Bool
    ) throws {
        guard let keepers, keepers.expectsSuccessor else { return }
        guard socket != nil || description != nil else {
            if isReplacing { keepers.forget(name) }
            return
        }
        let content = description ?? []
        let identity = socket == nil ? nil : SocketIdentity(at: path)
        let file = try Memfd(
            name: SocketIdentity.name(ofFile: KeptRecord.fileName, identity), count: max(1, content.count))
        defer { extendLifetime(file) }
        try file.write(content.span.bytes, at: 0)
        let record = file.withUnsafeDescriptor { $0.rawValue }
        let numbers = [record] + (socket.map { [$0] } ?? [])
        if isReplacing {
            try keepers.replace(name, with: numbers, atLeast: description == nil ? [] : [record])
        } else {
            try keepers.keep(name, numbers)
        }
    }

    /// Waits until all clients that came are taken over, or refused.
    func shut(_ listening: HandoffServer.Listening) { server.remove(listening) }

    /// Removes the socket of a machine that a server has left which has died, and that nobody can be served at.
    func drop(_ machine: String, at path: String?, for format: HandoffFormat, from peers: PeerPolicy) {
        if let path { sendAway(from: machine, at: path, for: format, peers) }
        let passed = path.flatMap { PassedDescriptors.takeSocket(of: machine, at: $0) }
        if let lent = passed?.lent {
            Glibc.close(passed!.number)
            PassedDescriptors.giveBack(lent)
        } else if let passed {
            server.sendAway(from: HandoffListener(adopting: passed.number, path: path), for: format, peers: peers)
        }
        keepers?.forget(KeptName.machine(machine))
    }

    /// Tells that no successor needs the socket of a machine.
    func forget(_ machine: String) {
        let name = KeptName.machine(machine)
        if let lent = lent.withLock({ $0.removeValue(forKey: name) }) { PassedDescriptors.giveBack(lent) }
        if kept.withLock({ $0.remove(name) }) != nil { keepers?.forget(name) }
    }

    /// Begins to accept clients.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/system``, also if there are too few descriptors to serve anybody.
    func start() throws {
        let hasRoom = OpenFiles.limit >= Self.leastDescriptors && OpenFiles.hasRoom(for: Self.descriptorsOfOneClient)
        guard hasRoom || PassedDescriptors.isSuccessor else {
            throw Failure(
                .system,
                "the limit of \(OpenFiles.limit) open files leaves no room for a client: raise it (ulimit -n, LimitNOFILE=)"
            )
        }
        do { try server.start() } catch { throw Failure(.system, "no thread: \(error)") }
    }

    /// Accepts nobody any more, and removes the sockets.
    ///
    /// Waits until all clients that came are taken over, or refused.
    func close() {
        server.close()
    }

    /// Tells that no successor needs any of the sockets.
    func forgetAll() {
        let names = kept.withLock { kept in
            defer { kept = [] }
            return kept
        }
        for name in names { keepers?.forget(name) }
    }
}

/// Counts what several threads see.
private final class Counter: Sendable {
    private let count = Atomic(0)

    var value: Int { count.load(ordering: .relaxed) }

    func increment() { count.add(1, ordering: .relaxed) }
}
