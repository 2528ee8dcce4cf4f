import NIOCore
import NIOEmbedded
import NIOHTTP1

/// One request to the control socket, and its answer: HTTP without a connection.
struct ControlExchange {
    /// What is to be sent.
    private(set) var request: [UInt8] = []
    /// Whether anything was received.
    private(set) var isAnswered = false
    private let channel = EmbeddedChannel()
    private var status: Int?
    private var body = ByteBuffer()

    init(_ method: HTTPMethod, _ target: String, body: String?) throws {
        try channel.pipeline.syncOperations.addHTTPClientHandlers()
        var headers: HTTPHeaders = ["Host": "uffd-pager", "Connection": "close"]
        if let body {
            headers.add(name: "Content-Type", value: "application/json")
            headers.add(name: "Content-Length", value: "\(body.utf8.count)")
        } else if method == .POST {
            headers.add(name: "Content-Length", value: "0")
        }
        try channel.writeOutbound(
            HTTPClientRequestPart.head(
                HTTPRequestHead(version: .http1_1, method: method, uri: target, headers: headers)))
        if let body { try channel.writeOutbound(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: body)))) }
        try channel.writeOutbound(HTTPClientRequestPart.end(nil))
        while let part = try channel.readOutbound(as: ByteBuffer.self) { request += part.readableBytesView }
    }

    /// Takes bytes that were received.
    ///
    /// - Returns: The answer when it is whole; what follows it does not count.
    /// - Throws: If this is not HTTP.
    mutating func receive(_ bytes: some Sequence<UInt8>) throws -> ControlAnswer? {
        isAnswered = true
        return try answer(after: Result { try channel.writeInbound(ByteBuffer(bytes: bytes)) })
    }

    /// Ends after the last byte, which may be the end of an answer whose length was not sent.
    ///
    /// - Returns: `nil` if the answer is not whole.
    mutating func end() -> ControlAnswer? {
        try? answer(after: Result { try channel.finish() })
    }

    private mutating func answer(after step: Result<some Any, any Error>) throws -> ControlAnswer? {
        while let part = try channel.readInbound(as: HTTPClientResponsePart.self) {
            switch part {
            case .head(let head): status = Int(head.status.code)
            case .body(var bytes): body.writeBuffer(&bytes)
            case .end:
                // An error after the end is one of bytes that nobody asked for.
                return status.map { ControlAnswer(status: $0, body: String(buffer: body)) }
            }
        }
        _ = try step.get()
        return nil
    }
}

/// What the server answers.
struct ControlAnswer {
    let status: Int
    let body: String
}
