public import UserfaultFD
public import UserfaultPager

/// Why memory could not be taken over from a client.
public enum HandoffError: Error, Hashable, Sendable {
    /// The kernel refused.
    case kernel(UserfaultError)

    /// The pager could not serve what the client handed over.
    case pager(PagerError)

    /// The peer sent something that its protocol does not allow; the text says what.
    case malformed(String)

    /// The peer's message is longer than ``HandoffLimits/messageBytes``.
    case tooLong(limit: Int)

    /// The peer handed over more regions than ``HandoffLimits/regions``.
    case tooManyRegions(limit: Int)

    /// The peer sent its message without a userfaultfd.
    case noDescriptor

    /// The kernel dropped the peer's descriptors, because this process may not open more files.
    case noRoomForDescriptors

    /// The peer closed the connection in the middle of a message, or sent none.
    case closedEarly

    /// The peer did not finish its message within ``HandoffLimits/handshakeTime``.
    case timedOut

    /// The socket was closed before the peer was served.
    case closed

    /// The peer is not one of those that are allowed.
    case refused(PeerCredentials)

    /// The peer's user has more connections that send their messages than ``HandoffLimits/connectionsPerUser``: this is the
    /// oldest.
    case tooManyConnections(limit: Int)

    /// The server did not take the memory over, for this reason.
    case notServed(String)

    /// The peer speaks a version of the protocol that this library does not know.
    case version(Int)
}

extension HandoffError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .kernel(let error): "\(error)"
        case .pager(let error): "\(error)"
        case .malformed(let text): "the peer's message is malformed: \(text)"
        case .tooLong(let limit): "the peer's message is longer than \(limit) bytes"
        case .tooManyRegions(let limit): "the peer has more than \(limit) regions"
        case .noDescriptor: "the peer sent no userfaultfd with its message"
        case .noRoomForDescriptors: "the peer's descriptors were lost: raise the limit of open files"
        case .closedEarly: "the peer closed the connection before its message was complete"
        case .timedOut: "the peer did not complete its message in time"
        case .closed: "the socket was closed before the peer was served"
        case .refused(let peer):
            "process \(peer.process) of user \(peer.user) and group \(peer.group) is not allowed to connect"
        case .tooManyConnections(let limit):
            "the peer's user has more than \(limit) connections that send their messages"
        case .notServed(let text): "the server does not serve the memory: \(text)"
        case .version(let version): "the peer speaks version \(version), which is not known here"
        }
    }
}

/// Calls the kernel, whose refusal is the handoff's error.
func asHandoffError<Result: ~Copyable>(
    _ body: () throws(UserfaultError) -> Result
) throws(HandoffError) -> Result {
    do throws(UserfaultError) { return try body() } catch { throw .kernel(error) }
}
