import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle
import UserfaultHandoff

/// Answers requests at the control socket, until it is stopped.
///
/// Nobody waits for it without a limit: a request may take as long as its client or its machine likes.
struct ControlServer {
    private let group: ServiceGroup
    private let socket: ControlSocket
    private let work: Task<Void, Never>
    /// Why it has ended by itself.
    private let failures: AsyncStream<any Error>
    /// Finished with it.
    private let ended: AsyncStream<Never>
    private let end: AsyncStream<Never>.Continuation

    /// More than a person and a program need, and than ``RequestLimits`` let wait; few enough to leave descriptors for
    /// machines.
    private static let connections = 256
    /// How long a connection may be without a request that is being answered.
    private static let idleTime = TimeAmount.seconds(10)

    /// Begins to answer at a socket.
    ///
    /// - Parameters:
    ///   - mode: The permissions of the socket; `nil` for what the umask leaves.
    ///   - onStart: Is called when requests are answered.
    init(
        _ registry: MachineRegistry, at socket: ControlSocket, mode: UInt32?, from peers: PeerPolicy, logger: Logger,
        onStart: @escaping @Sendable () -> Void
    ) {
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let refusals = Refusals("a request at the control socket was refused", logger)
        let (failures, failure) = AsyncStream.makeStream(of: (any Error).self)
        let application = Application(
            router: ControlRouter.make(registry, RequestLimits()),
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [PeerHandler(peers, refusals)], idleTimeout: Self.idleTime)),
            configuration: ApplicationConfiguration(
                address: .unixDomainSocket(path: socket.place), serverName: nil,
                availableConnectionsDelegate: MaximumAvailableConnections(Self.connections, logger: quiet)),
            onServerRunning: { _ in
                do {
                    try socket.publish(mode: mode)
                    onStart()
                } catch {
                    failure.yield(error)
                }
            }, logger: quiet)
        let group = ServiceGroup(configuration: .init(services: [application], logger: quiet))
        let (ended, end) = AsyncStream.makeStream(of: Never.self)
        self.socket = socket
        self.group = group
        self.failures = failures
        self.ended = ended
        self.end = end
        work = Task {
            do { try await group.run() } catch { failure.yield(error) }
            failure.finish()
            end.finish()
        }
    }

    /// Waits until a signal comes.
    ///
    /// - Returns: Why requests cannot be answered any more, if that is before.
    func run(until signals: AsyncStream<Void>) async -> (any Error)? {
        await withTaskGroup(of: (any Error)?.self) { group in
            group.addTask {
                for await _ in signals { break }
                return nil
            }
            group.addTask { [failures] in
                for await error in failures { return error }
                return nil
            }
            defer { group.cancelAll() }
            return await group.next() ?? nil
        }
    }

    /// Takes no more requests; those that have come are answered.
    func stop() async {
        socket.remove()
        await group.triggerGracefulShutdown()
    }

    /// Waits until requests that have come are answered, and closes the connections of those that are not.
    func end(within limit: Duration) async {
        let patience = Task { [work, end] in
            try await Task.sleep(for: limit)
            work.cancel()
            try await Task.sleep(for: limit)
            end.finish()
        }
        for await _ in ended {}
        patience.cancel()
    }
}
