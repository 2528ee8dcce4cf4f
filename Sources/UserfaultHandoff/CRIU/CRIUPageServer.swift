public import UserfaultFD

/// Where a page server of CRIU listens: what `criu dump --lazy-pages --port PORT` has of the pages that it dumps.
public struct CRIUPageServer: Hashable, Sendable {
    enum Place: Hashable, Sendable {
        case tcp(address: String, port: UInt16)
        case unix(path: String)
    }

    let place: Place
    let layout: CRIUPageServerMessage.Layout

    /// A server at a TCP port.
    ///
    /// - Parameters:
    ///   - address: An IPv4 or IPv6 address, in digits.
    ///   - port: Its port.
    ///   - wideMessages: Whether the server counts pages in 64 bits, as CRIU does after version 4.2: its messages then have
    ///     32 bytes, and 24 before. The protocol does not say which.
    public init(address: String, port: UInt16, wideMessages: Bool = false) {
        place = .tcp(address: address, port: port)
        layout = wideMessages ? .wide : .narrow
    }

    /// A server behind a Unix socket, for example at the end of a tunnel.
    public init(path: String, wideMessages: Bool = false) {
        place = .unix(path: path)
        layout = wideMessages ? .wide : .narrow
    }

    /// A server by its name: `ADDRESS:PORT`, `[ADDRESS]:PORT` for IPv6, or the path of a Unix socket, which has a slash.
    ///
    /// - Returns: `nil` for anything else.
    public init?(_ name: String, wideMessages: Bool = false) {
        if name.contains("/") {
            self.init(path: name, wideMessages: wideMessages)
            return
        }
        guard let colon = name.lastIndex(of: ":"), let port = UInt16(name[name.index(after: colon)...]), port > 0 else {
            return nil
        }
        var address = name[..<colon]
        if address.hasPrefix("["), address.hasSuffix("]") { address = address.dropFirst().dropLast() }
        guard !address.isEmpty else { return nil }
        self.init(address: String(address), port: port, wideMessages: wideMessages)
    }
}

/// Why a page server gave no pages.
public enum CRIUServerError: Error, Hashable, Sendable {
    /// The connection could not be made, or broke.
    case connection(UserfaultError)
    /// The server closed the connection.
    case closed
    /// The server sent what its protocol does not allow; the text says what.
    case protocolViolation(String)
    /// The server left requests without an answer for too long.
    case timedOut
    /// The server did not confirm that it has heard of the end.
    case notConfirmed
}

extension CRIUServerError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .connection(let error): "no connection to the page server: \(error)"
        case .closed: "the page server closed the connection"
        case .protocolViolation(let text): "the page server breaks the protocol: \(text)"
        case .timedOut: "the page server did not answer in time"
        case .notConfirmed: "the page server did not confirm the end"
        }
    }
}
