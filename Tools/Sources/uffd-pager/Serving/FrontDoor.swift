import ArgumentParser
import Logging
import UserfaultFD
import UserfaultHandoff

/// The sockets at which machines connect, and one thread for all of them.
final class FrontDoor: Sendable {
    private let server: HandoffServer

    init(logger: Logger, limits: HandoffLimits = HandoffLimits()) throws {
        do {
            server = try HandoffServer(limits: limits) { report in
                var metadata: Logger.Metadata = ["error": "\(report.error)"]
                if let peer = report.peer { metadata["process"] = "\(peer.process)" }
                logger.warning("a connection ended before memory was handed over", metadata: metadata)
            }
        } catch {
            throw Failure(.system, "no server: \(error)")
        }
    }

    /// Accepts machines at a path.
    @discardableResult
    func open(
        at path: String, for format: HandoffFormat, from peers: PeerPolicy, _ handler: @escaping HandoffServer.Handler
    ) throws -> HandoffServer.Listening {
        do {
            if let passed = Systemd.takeSocket(at: path) {
                return try server.listen(HandoffListener(adopting: passed), for: format, from: peers, handler)
            }
            return try server.listen(HandoffListener(path: path), for: format, from: peers, handler)
        } catch {
            throw Failure(.uncreatable, "\(path): \(error)")
        }
    }

    func shut(_ listening: HandoffServer.Listening) { server.remove(listening) }

    func start() throws {
        do { try server.start() } catch { throw Failure(.system, "no thread: \(error)") }
    }

    /// Accepts nobody any more, and removes the sockets.
    func close() { server.close() }
}
