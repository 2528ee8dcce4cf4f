import ArgumentParser
import NIOCore
import NIOHTTP1
import NIOPosix

/// Asks the control socket of uffd-pager serve.
struct ControlClient {
    let path: String

    struct Answer {
        let status: HTTPResponseStatus
        let body: String
    }

    /// The longest answer: the metrics of all machines that there may be.
    private static let limit = 256 << 20

    /// Sends one request over a connection of its own.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unavailable``.
    func ask(_ method: HTTPMethod, _ target: String, body: String? = nil) async throws -> Answer {
        do {
            let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                .connect(unixDomainSocketPath: path) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>(
                            wrappingChannelSynchronously: channel)
                    }
                }
            return try await channel.executeThenClose { inbound, outbound in
                var headers = HTTPHeaders([("Host", "uffd-pager"), ("Connection", "close")])
                if let body {
                    headers.add(name: "Content-Type", value: "application/json")
                    headers.add(name: "Content-Length", value: "\(body.utf8.count)")
                } else if method == .POST {
                    headers.add(name: "Content-Length", value: "0")
                }
                try await outbound.write(
                    .head(HTTPRequestHead(version: .http1_1, method: method, uri: target, headers: headers)))
                if let body { try await outbound.write(.body(.byteBuffer(ByteBuffer(string: body)))) }
                try await outbound.write(.end(nil))
                return try await Self.read(inbound)
            }
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(.unavailable, "\(path) does not answer: \(error)")
        }
    }

    private static func read(_ parts: NIOAsyncChannelInboundStream<HTTPClientResponsePart>) async throws -> Answer {
        var status: HTTPResponseStatus?
        var bytes = ByteBuffer()
        for try await part in parts {
            switch part {
            case .head(let head): status = head.status
            case .body(var part):
                guard bytes.readableBytes + part.readableBytes <= limit else {
                    throw Failure(.unavailable, "the answer is longer than \(limit) bytes")
                }
                bytes.writeBuffer(&part)
            case .end: break
            }
            if case .end = part { break }
        }
        guard let status else { throw Failure(.unavailable, "the connection was closed without an answer") }
        return Answer(status: status, body: String(buffer: bytes))
    }
}
