import ArgumentParser
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix

/// Asks the control socket of uffd-pager serve.
struct ControlClient {
    let path: String
    /// How long to wait for the answer; `nil` waits without a limit.
    let limit: Duration?

    struct Answer {
        let status: HTTPResponseStatus
        let body: String
    }

    /// The longest answer: the metrics of all machines that there may be.
    private static let byteLimit = 256 << 20

    /// The longest path of a Unix socket, in bytes.
    private static let pathLimit = 107

    /// Sends one request over a connection of its own.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unavailable``.
    func ask(_ method: HTTPMethod, _ target: String, body: String? = nil) async throws -> Answer {
        guard path.utf8.count <= Self.pathLimit else {
            throw Failure(
                .unavailable, "\(path) is longer than the \(Self.pathLimit) bytes that the path of a socket may have")
        }
        guard let limit else { return try await send(method, target, body) }
        return try await withThrowingTaskGroup(of: Answer.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await send(method, target, body) }
            group.addTask {
                try await Task.sleep(for: limit)
                throw Failure(.unavailable, "\(path) does not answer within \(limit.components.seconds) seconds")
            }
            return try await group.next()!
        }
    }

    private typealias Channel = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    /// How long a successor may take to listen in place of a server that has died, or is replaced.
    private static let patience = Duration.seconds(2)

    private func connect() async throws -> Channel {
        let end = ContinuousClock.now + Self.patience
        var isRefused = false
        while true {
            do {
                return try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                    .connect(unixDomainSocketPath: path) { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHTTPClientHandlers()
                            return try Channel(wrappingChannelSynchronously: channel)
                        }
                    }
            } catch let error as IOError {
                // The successor removes the socket that nobody listens at before it makes its own.
                if error.errnoCode == ECONNREFUSED { isRefused = true }
                guard isRefused, [ECONNREFUSED, ENOENT].contains(error.errnoCode), .now < end else { throw error }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    private func send(_ method: HTTPMethod, _ target: String, _ body: String?) async throws -> Answer {
        do {
            let channel = try await connect()
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
        } catch let error as IOError {
            throw Failure(.unavailable, "\(path) does not answer: \(String(cString: strerror(error.errnoCode)))")
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
                guard bytes.readableBytes + part.readableBytes <= byteLimit else {
                    throw Failure(.unavailable, "the answer is longer than \(byteLimit) bytes")
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
