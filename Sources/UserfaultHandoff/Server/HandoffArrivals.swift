public import SystemPackage

/// Is told of peers while they hand their memory over, so that somebody ends them if this process dies meanwhile.
///
/// A peer of ``HandoffFormat/firecracker`` that has sent its message is not told that nobody has taken it: it waits for
/// ever. Have the descriptors kept by another process. When this one dies, that process, or a successor, kills the peers that
/// ``willRead(_:from:)`` was called for, and gives the connections of the others to ``HandoffServer/sendAway(_:)``.
///
/// Called on the server's thread, which must not wait for long.
public protocol HandoffArrivals: Sendable {
    /// A peer has connected, and nothing that it sends was read. The socket stays the server's.
    func hasConnected(_ id: UInt64, over socket: FileDescriptor)

    /// What the peer sends is read from now on. The pidfd stays the server's.
    func willRead(_ id: UInt64, from process: FileDescriptor)

    /// The peer was refused or killed, or its service has begun, or others keep its descriptors.
    func hasEnded(_ id: UInt64)
}

/// One peer that hands its memory over: it ends with the last reference at the latest.
final class Arrival: Sendable {
    private let id: UInt64
    private let keeper: any HandoffArrivals

    init(_ id: UInt64, over socket: FileDescriptor, keptBy keeper: any HandoffArrivals) {
        self.id = id
        self.keeper = keeper
        keeper.hasConnected(id, over: socket)
    }

    deinit { end() }

    func willRead(from process: FileDescriptor) { keeper.willRead(id, from: process) }

    /// A second call does no harm.
    func end() { keeper.hasEnded(id) }
}
