import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore

/// A request.
struct ControlContext: RequestContext {
    var coreContext: CoreRequestContextStorage

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
    }

    /// The members of a document are always in the same order.
    var responseEncoder: JSONEncoder {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return encoder
    }

    /// No request needs more.
    var maxUploadSize: Int { 64 << 10 }
}

/// Says why a request is refused.
struct ErrorMiddleware: RouterMiddleware {
    typealias Context = ControlContext

    func handle(
        _ request: Request, context: Context, next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch let error as ControlError {
            let status: HTTPResponse.Status =
                switch error {
                case .exists: .conflict
                case .unknown: .notFound
                case .tooMany, .tooManyRequests: .tooManyRequests
                case .tooLong: .contentTooLarge
                case .ending: .serviceUnavailable
                case .refused, .failed: .unprocessableContent
                }
            return try Self.error(status, error.text)
        } catch let error as JSONDocument.Complaint {
            return try Self.error(.badRequest, error.description)
        } catch let error as HTTPError {
            return try Self.error(error.status, error.body ?? error.status.reasonPhrase)
        }
    }

    private static func error(_ status: HTTPResponse.Status, _ text: String) throws -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        let body = try encoder.encode(ErrorDocument(error: text))
        return Response(
            status: status, headers: [.contentType: "application/json; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: body)))
    }
}
