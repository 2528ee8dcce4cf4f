import CPagerSupport
import Glibc
import Logging
import Synchronization

/// What systemd gives a service, and wants to know of it; nothing of it happens elsewhere.
enum Systemd {
    /// Tells a state, such as `READY=1`.
    static func notify(_ state: String, logger: Logger) {
        let answer = cps_notify(state, nil, 0)
        if answer < 0 {
            logger.warning("systemd cannot be told", metadata: ["error": "\(String(cString: strerror(-answer)))"])
        }
    }

    /// The first descriptor that is passed.
    private static var first: Int32 { 3 }

    private static let sockets = Mutex<[String: Int32]>([:])

    /// Takes note of the sockets that systemd passed: before anything else opens a descriptor.
    static func prepare() { sockets.withLock { $0 = listening() } }

    /// The socket that systemd bound to a path; the caller owns it.
    static func takeSocket(at path: String) -> Int32? { sockets.withLock { $0.removeValue(forKey: path) } }

    /// The listening sockets that systemd passed to the guard, by the paths that they are bound to.
    private static func listening() -> [String: Int32] {
        func number(_ name: String) -> Int32? { getenv(name).flatMap { Int32(String(cString: $0)) } }
        defer { for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) } }
        // The guard is the process that systemd started.
        guard let process = number("LISTEN_PID"), process == getppid(), let count = number("LISTEN_FDS"), count > 0,
            count <= 1024
        else { return [:] }
        var sockets: [String: Int32] = [:]
        for descriptor in first..<first + count {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            let path = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { room in
                cps_socket_path(descriptor, room.baseAddress, room.count) < 0 ? nil : String(cString: room.baseAddress!)
            }
            if let path { sockets[path] = descriptor }
        }
        return sockets
    }
}
