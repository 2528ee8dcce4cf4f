import FoundationEssentials
import Glibc
import HTTPTypes
import NIOCore
import NIOHTTPTypes
import UserfaultHandoff

/// Closes the connections of peers that are not allowed, by what the kernel says of them, before they send anything.
final class PeerHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias OutboundOut = HTTPResponsePart

    private let peers: PeerPolicy
    private let refusals: Refusals

    init(_ peers: PeerPolicy, _ refusals: Refusals) {
        self.peers = peers
        self.refusals = refusals
    }

    /// `struct ucred`.
    private struct Credentials: Sendable {
        let pid: Int32
        let uid: UInt32
        let gid: UInt32
    }

    func channelActive(context: ChannelHandlerContext) {
        context.fireChannelActive()
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        guard let provider = context.channel as? any SocketOptionProvider else {
            return refuse("the peer of this connection is not known", context)
        }
        let peer: EventLoopFuture<Credentials> = provider.unsafeGetSocketOption(
            level: SocketOptionLevel(SOL_SOCKET), name: SocketOptionName(SO_PEERCRED))
        peer.whenComplete { result in
            let (handler, context) = bound.value
            switch result {
            case .success(let peer):
                if !handler.allows(peer) {
                    handler.refuse(
                        "user \(peer.uid) of group \(peer.gid) is not allowed: only \(handler.allowed)", context)
                }
            case .failure(let error): handler.refuse("the peer is not known: \(error)", context)
            }
        }
    }

    /// Whoever is allowed or not, this program's user and root could do all of it anyway.
    private func allows(_ peer: Credentials) -> Bool {
        peer.uid == 0 || peer.uid == geteuid() || peers.allows(user: peer.uid, group: peer.gid, process: peer.pid)
    }

    /// Who is allowed, and how to allow others.
    private var allowed: String {
        func list(_ ids: Set<UInt32>) -> String { ids.sorted().map(String.init).joined(separator: ", ") }
        let always: Set<UInt32> = [0, geteuid()]
        let who =
            if let groups = peers.groups {
                "group \(list(groups))\(peers.users.map { " with user \(list($0))" } ?? ""), and user \(list(always))"
            } else { "user \(list(always.union(peers.users ?? [])))" }
        return "\(who); run it as one of them, or start the server with --allow-user or --allow-group"
    }

    private func refuse(_ text: String, _ context: ChannelHandlerContext) {
        refusals.note(text)
        let body = (try? JSONEncoder().encode(ErrorDocument(error: text))).map(ByteBuffer.init(bytes:)) ?? ByteBuffer()
        let head = HTTPResponse(
            status: .forbidden,
            headerFields: [
                .contentType: "application/json; charset=utf-8", .contentLength: "\(body.readableBytes)",
                .connection: "close",
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(body)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.close(promise: nil)
    }
}
