import FoundationEssentials
import Glibc
import HTTPTypes
import Hummingbird
import NIOCore
import UserfaultFD
import UserfaultHandoff

/// A request, and the connection that it came over.
struct ControlContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }

    /// No request needs more.
    var maxUploadSize: Int { 64 << 10 }
}

/// Answers only peers that are allowed, by what the kernel says of them.
struct PeerMiddleware: RouterMiddleware {
    typealias Context = ControlContext

    let peers: PeerPolicy

    func handle(
        _ request: Request, context: Context, next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard let provider = context.channel as? any SocketOptionProvider else {
            return try Self.error(.forbidden, "the peer of this connection is not known")
        }
        let peer: Credentials = try await provider.unsafeGetSocketOption(
            level: SocketOptionLevel(SOL_SOCKET), name: SocketOptionName(SO_PEERCRED)
        ).get()
        guard peers.allows(user: peer.uid, group: peer.gid, process: peer.pid) else {
            return try Self.error(.forbidden, "user \(peer.uid) of group \(peer.gid) is not allowed")
        }
        do {
            return try await next(request, context)
        } catch let error as ControlError {
            let status: HTTPResponse.Status =
                switch error {
                case .exists: .conflict
                case .unknown: .notFound
                case .tooMany: .tooManyRequests
                case .tooLong: .contentTooLarge
                case .ending: .serviceUnavailable
                case .refused: .unprocessableContent
                }
            return try Self.error(status, error.text)
        } catch let error as DecodingError {
            return try Self.error(.badRequest, error.sentence)
        } catch let error as HTTPError {
            return try Self.error(error.status, error.body ?? error.status.reasonPhrase)
        }
    }

    /// `struct ucred`.
    private struct Credentials {
        let pid: Int32
        let uid: UInt32
        let gid: UInt32
    }

    private static func error(_ status: HTTPResponse.Status, _ text: String) throws -> Response {
        let body = try JSONEncoder().encode(ErrorDocument(error: text))
        return Response(
            status: status, headers: [.contentType: "application/json; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: body)))
    }
}
