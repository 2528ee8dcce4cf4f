import ArgumentParser
import Glibc
import NIOHTTP1
import SystemPackage

/// Asks the control socket of uffd-pager serve.
///
/// It reads the answer also if the request could not be sent whole: a server that refuses its peer answers at once, and closes
/// the connection.
struct ControlClient {
    let path: String
    /// How long to wait for the answer; `nil` waits without a limit.
    let limit: Duration?

    /// The longest answer: the metrics of all machines that there may be.
    private static let byteLimit = 256 << 20

    /// How long a successor may take to listen in place of a server that has died, or is replaced.
    private static let patience = Duration.seconds(2)

    /// How long a socket may be missing that such a server has left: for as long as its successor needs to make one.
    private static let gap = Duration.milliseconds(100)

    /// Sends one request over a connection of its own.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unavailable``, or ``ExitCode/notAllowed``.
    func ask(_ method: HTTPMethod, _ target: String, body: String? = nil) throws -> ControlAnswer {
        let end = limit.map { ContinuousClock.now + $0 }
        let patience = min(ContinuousClock.now + Self.patience, end ?? .now + Self.patience)
        while true {
            let socket = try connect(until: end, patience)
            defer { try? socket.close() }
            var exchange = try ControlExchange(method, target, body: body)
            if let answer = try run(&exchange, socket, until: end) { return answer }
            guard method == .GET, !exchange.isAnswered, .now < patience else {
                throw Failure(
                    .unavailable,
                    "\(path): the server has ended before it answered"
                        + (method == .GET ? "" : "; whether it was done, 'uffd-pager ctl list' tells"))
            }
            // The server has died, or was replaced, before it took the connection.
            pause()
        }
    }

    private func pause() { usleep(20_000) }

    /// - Parameters:
    ///   - end: When to give up a server that takes no connections, as one that is stopped.
    ///   - patience: When to give up a server that does not listen.
    private func connect(
        until end: ContinuousClock.Instant?, _ patience: ContinuousClock.Instant
    ) throws -> FileDescriptor {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        try SocketPath.check(path, .unavailable)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let number = Glibc.socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
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
            let last: ContinuousClock.Instant? =
                switch error {
                case .resourceTemporarilyUnavailable: end
                case .connectionRefused, .noSuchFileOrDirectory: isLeft ? patience : gap
                default: .now
                }
            if let last, .now >= last {
                try? socket.close()
                throw error == .resourceTemporarilyUnavailable ? late : failure(error)
            }
            pause()
        }
    }

    private var late: Failure {
        Failure(.unavailable, "\(path) does not answer within \(limit?.components.seconds ?? 0) seconds")
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

    /// Sends a request, as far as the server takes it, and reads until the answer is whole or the server closes the connection.
    ///
    /// - Returns: `nil` if the answer is not whole.
    private func run(
        _ exchange: inout ControlExchange, _ socket: FileDescriptor, until end: ContinuousClock.Instant?
    ) throws -> ControlAnswer? {
        var request = exchange.request[...]
        var byteCount = 0
        let part = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 1)
        defer { part.deallocate() }
        while true {
            try wait(for: socket, toWrite: !request.isEmpty, until: end)
            if !request.isEmpty {
                let count = request.withUnsafeBytes {
                    send(socket.rawValue, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL))
                }
                // Nobody reads the rest; the answer says why.
                request = count >= 0 ? request.dropFirst(count) : [EINTR, EAGAIN].contains(errno) ? request : []
            }
            let count = recv(socket.rawValue, part.baseAddress!, part.count, 0)
            if count < 0, [EINTR, EAGAIN].contains(errno) { continue }
            if count == 0 { return exchange.end() }
            // A server that has not read all of the request resets the connection, after its answer.
            guard count > 0 else { return nil }
            byteCount += count
            guard byteCount <= Self.byteLimit else {
                throw Failure(.unavailable, "\(path): the answer is longer than \(Self.byteLimit) bytes")
            }
            if let answer = try receive(part.prefix(count), &exchange) { return answer }
        }
    }

    private func receive(
        _ bytes: Slice<UnsafeMutableRawBufferPointer>, _ exchange: inout ControlExchange
    ) throws -> ControlAnswer? {
        do {
            return try exchange.receive(bytes)
        } catch {
            throw Failure(
                .unavailable,
                "\(path): the answer is not HTTP; is this the control socket of 'uffd-pager serve'?")
        }
    }

    private func wait(
        for socket: FileDescriptor, toWrite isWriting: Bool, until end: ContinuousClock.Instant?
    ) throws {
        var file = pollfd(fd: socket.rawValue, events: Int16(POLLIN | (isWriting ? POLLOUT : 0)), revents: 0)
        while true {
            let left = end.map { max(.zero, $0 - .now) / .milliseconds(1) }
            let count = poll(&file, 1, left.map { Int32($0.rounded(.up)) } ?? -1)
            // A server that never stops sending is late as well.
            if let end, .now >= end { throw late }
            if count > 0 { return }
        }
    }
}
