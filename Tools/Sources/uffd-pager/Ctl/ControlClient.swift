import ArgumentParser
import Glibc
import SystemPackage

/// Asks the control socket of uffd-pager serve.
///
/// It reads the answer also if the request could not be sent whole: a server that refuses its peer answers at once, and closes
/// the connection.
struct ControlClient {
    let path: String
    /// How long to wait for the answer; `nil` waits without a limit.
    let limit: Duration?

    enum Method: String {
        case get = "GET"
        case post = "POST"
        case delete = "DELETE"
    }

    /// The longest answer: the metrics of all machines that there may be.
    private static let byteLimit = 256 << 20

    /// How long a successor may take to listen in place of a server that has died, or is replaced.
    private static let patience = Duration.seconds(2)

    /// How long a socket may be missing that such a server has left: for as long as its successor needs to make one.
    private static let gap = Duration.milliseconds(100)

    /// Sends one request over a connection of its own.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unavailable``, or ``ExitCode/notAllowed``.
    func ask(_ method: Method, _ target: String, body: String? = nil) throws -> ControlAnswer {
        let end = limit.map { ContinuousClock.now + $0 }
        let patience = min(ContinuousClock.now + Self.patience, end ?? .now + Self.patience)
        while true {
            let socket = try connect(until: patience)
            defer { try? socket.close() }
            let bytes = try exchange(request(method, target, body), socket, until: end)
            if let answer = ControlAnswer(bytes) { return answer }
            guard method == .get, bytes.isEmpty, .now < patience else {
                throw Failure(
                    .unavailable,
                    "\(path): the server has ended before it answered"
                        + (method == .get ? "" : "; whether it was done, 'uffd-pager ctl list' tells"))
            }
            // The server has died, or was replaced, before it took the connection.
            pause()
        }
    }

    private func request(_ method: Method, _ target: String, _ body: String?) -> [UInt8] {
        var lines = ["\(method.rawValue) \(target) HTTP/1.1", "Host: uffd-pager", "Connection: close"]
        if let body {
            lines += ["Content-Type: application/json", "Content-Length: \(body.utf8.count)"]
        } else if method == .post {
            lines.append("Content-Length: 0")
        }
        return Array((lines.joined(separator: "\r\n") + "\r\n\r\n" + (body ?? "")).utf8)
    }

    private func pause() { usleep(20_000) }

    private func connect(until end: ContinuousClock.Instant) throws -> FileDescriptor {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        try SocketPath.check(path, .unavailable)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let number = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard number >= 0 else { throw Failure(.system, "no socket: \(Errno(rawValue: errno))") }
        let socket = FileDescriptor(rawValue: number)
        let gap = ContinuousClock.now + Self.gap
        var isLeft = false
        while true {
            let answer = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            if answer == 0 { return socket }
            let error = Errno(rawValue: errno)
            if error == .interrupted { continue }
            if error == .connectionRefused { isLeft = true }
            guard [.connectionRefused, .noSuchFileOrDirectory].contains(error), .now < (isLeft ? end : gap) else {
                try? socket.close()
                throw failure(error)
            }
            pause()
        }
    }

    private func failure(_ error: Errno) -> Failure {
        guard [.permissionDenied, .notPermitted].contains(error) else {
            let remedy =
                [.connectionRefused, .noSuchFileOrDirectory].contains(error)
                ? "; is 'uffd-pager serve' running, with this path for --control?" : ""
            return Failure(.unavailable, "\(path) does not answer: \(error)\(remedy)")
        }
        var status = stat()
        guard stat(path, &status) == 0 else {
            return Failure(
                .notAllowed,
                "\(path): permission denied: this user (\(geteuid())) cannot enter its folder; run ctl as the server's user "
                    + "or as root")
        }
        let mode = String(status.st_mode & 0o777, radix: 8)
        return Failure(
            .notAllowed,
            "\(path): permission denied: the socket belongs to user \(status.st_uid) and group \(status.st_gid), and has the "
                + "mode 0\(mode); run ctl as its user or as root, or start the server with --socket-mode, and --allow-user or "
                + "--allow-group")
    }

    /// Sends a request, as far as the server takes it, and reads what the server sends until it closes the connection.
    private func exchange(
        _ request: [UInt8], _ socket: FileDescriptor, until end: ContinuousClock.Instant?
    ) throws -> [UInt8] {
        var left = request[...]
        var answer: [UInt8] = []
        let part = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 1)
        defer { part.deallocate() }
        while true {
            try wait(for: socket, toWrite: !left.isEmpty, until: end)
            if !left.isEmpty {
                let count = left.withUnsafeBytes {
                    send(
                        socket.rawValue, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)
                    )
                }
                // Nobody reads the rest; the answer says why.
                left = count >= 0 ? left.dropFirst(count) : [EINTR, EAGAIN].contains(errno) ? left : []
            }
            let count = recv(socket.rawValue, part.baseAddress!, part.count, Int32(MSG_DONTWAIT))
            if count < 0, [EINTR, EAGAIN].contains(errno) { continue }
            // A server that has not read all of the request resets the connection, after its answer.
            guard count > 0 else { return answer }
            answer += part.prefix(count)
            guard answer.count <= Self.byteLimit else {
                throw Failure(.unavailable, "the answer is longer than \(Self.byteLimit) bytes")
            }
        }
    }

    private func wait(
        for socket: FileDescriptor, toWrite isWriting: Bool, until end: ContinuousClock.Instant?
    ) throws {
        var file = pollfd(fd: socket.rawValue, events: Int16(POLLIN | (isWriting ? POLLOUT : 0)), revents: 0)
        while true {
            let left = end.map { max(.zero, $0 - .now) / .milliseconds(1) }
            let count = poll(&file, 1, left.map { Int32($0.rounded(.up)) } ?? -1)
            if count > 0 { return }
            guard count == 0, let limit else { continue }
            throw Failure(.unavailable, "\(path) does not answer within \(limit.components.seconds) seconds")
        }
    }
}

/// What the server answers.
struct ControlAnswer {
    let status: Int
    let body: String

    /// - Returns: `nil` unless it is whole.
    init?(_ bytes: [UInt8]) {
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n")
        guard let words = lines.first?.split(separator: " "), words.count >= 2, words[0].hasPrefix("HTTP/1."),
            let status = Int(words[1])
        else { return nil }
        let rest = bytes[end.upperBound...]
        for line in lines.dropFirst() where line.lowercased().hasPrefix("content-length:") {
            guard
                line.drop(while: { $0 != ":" }).dropFirst().split(separator: " ").first.flatMap({ Int($0) })
                    == rest.count
            else { return nil }
        }
        self.status = status
        body = String(decoding: rest, as: UTF8.self)
    }
}
