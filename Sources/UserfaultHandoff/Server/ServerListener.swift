internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

/// A socket of a server.
final class ServerListener: Sendable {
    let socket: HandoffListener
    let format: HandoffFormat
    let peers: PeerPolicy
    let stranded: HandoffServer.Stranded
    let handler: HandoffServer.Handler
    /// Clients that were handed over, and that the handler has not returned from.
    private let handled = Mutex(0)
    /// Wakes who waits until there is none.
    private let changes = FutexWord()

    init(
        _ socket: consuming HandoffListener, _ format: HandoffFormat, _ peers: PeerPolicy,
        _ stranded: HandoffServer.Stranded,
        _ handler: @escaping HandoffServer.Handler
    ) {
        self.socket = socket
        self.format = format
        self.peers = peers
        self.stranded = stranded
        self.handler = handler
    }

    /// What to wait for.
    var number: FileDescriptor { socket.socket }

    /// Whether a peer that has sent its message would wait for ever if nobody read it.
    var strandsPeers: Bool { format == .firecracker && stranded == .killed }

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
