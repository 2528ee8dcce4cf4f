import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

/// The process that starts the server and outlives it: it keeps a duplicate of every client's userfaultfd, and does nothing
/// else.
///
/// When the server dies, its clients would wait for ever, or read zeros if nobody else had their descriptors. The guard
/// kills them first.
struct Guard: ~Copyable {
    /// The exit code if the server died and clients had to be killed (EX_SOFTWARE).
    static let serverDied: Int32 = 70

    private enum Token {
        static let signal: UInt64 = 0
        static let server: UInt64 = 1
        static let socket: UInt64 = 2
    }

    private let server: ProcessHandle
    private let serverID: pid_t
    private let socket: FileDescriptor
    private let signals: FileDescriptor
    private var kept: [UInt64: (uffd: Int32, process: Int32)] = [:]

    /// Starts the program again, with the same arguments, as the server.
    init() throws {
        var before = sigset_t()
        let signals = cps_signals(&before)
        var sockets: [Int32] = [-1, -1]
        guard signals >= 0 else { throw Failure(.system, "no signals: \(Errno(rawValue: -signals))") }
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &sockets) == 0
        else { throw Failure(.system, "no socket for the server: \(String(cString: strerror(errno)))") }
        let id = try Self.spawn(socket: sockets[1], mask: before)
        Glibc.close(sockets[1])
        let server = try ProcessHandle(id: id)
        self.server = server
        serverID = id
        self.signals = FileDescriptor(rawValue: signals)
        socket = FileDescriptor(rawValue: sockets[0])
    }

    private static func spawn(socket: Int32, mask: sigset_t) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // The number that the duplicate gets is one that nothing has: the socket itself is closed on exec.
        let number = fcntl(socket, F_DUPFD_CLOEXEC, 100)
        defer { Glibc.close(number) }
        posix_spawn_file_actions_adddup2(&actions, socket, number + 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = mask
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        setenv(GuardLink.variable, "\(number + 1)", 1)
        defer { unsetenv(GuardLink.variable) }
        let arguments = CommandLine.arguments.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var id: pid_t = 0
        let error = posix_spawn(&id, "/proc/self/exe", &actions, &attributes, arguments, environ)
        guard error == 0 else {
            throw Failure(.system, "the server cannot be started: \(String(cString: strerror(error)))")
        }
        return id
    }

    /// Keeps what the server gives it, until the server has ended.
    ///
    /// - Returns: The program's exit code.
    mutating func stand() throws -> Int32 {
        let set = try PollSet()
        try set.add(signals, token: Token.signal)
        try set.add(server, token: Token.server)
        try set.add(socket, token: Token.socket)
        var batch = ReadyBatch(capacity: 4)
        while true {
            try set.wait(into: &batch)
            var isOver = false
            while let ready = batch.next() {
                switch ready.token {
                case Token.signal: forward()
                case Token.socket: if !take() { try? set.remove(socket) }
                default: isOver = true
                }
            }
            if isOver { return end() }
        }
    }

    /// Hands signals on; the terminal's come to the server by themselves.
    private func forward() {
        var isFromTerminal: Int32 = 0
        let signal = cps_next_signal(signals.rawValue, &isFromTerminal)
        if signal > 0 && isFromTerminal == 0 { try? server.kill(signal: signal) }
    }

    /// Takes one message.
    ///
    /// - Returns: `false` at the end of the stream.
    private mutating func take() -> Bool {
        guard var message = try? DescriptorPassing.receive(upTo: GuardMessage.byteCount, from: socket) else {
            return false
        }
        switch GuardMessage(message.payload) {
        case .keep(let id):
            guard let uffd = message.descriptors.takeFirst() else { return true }
            guard let process = message.descriptors.takeFirst() else {
                Glibc.close(uffd)
                return true
            }
            kept[id] = (uffd, process)
        case .forget(let id):
            if let client = kept.removeValue(forKey: id) { [client.uffd, client.process].forEach { Glibc.close($0) } }
        case nil:
            return !message.payload.isEmpty
        }
        return true
    }

    /// The exit code if no client was left behind.
    private static func code(ofServerEndedBy signal: Int32, _ code: Int32) -> Int32 {
        switch signal {
        case 0: return code
        // Told to end before it began to serve: what a shell calls that.
        case SIGTERM, SIGINT, SIGHUP: return 128 + signal
        default:
            Standard.complain("error: the server has died signal=\(signal)")
            return serverDied
        }
    }

    /// The server has ended: kills what it has left behind.
    private mutating func end() -> Int32 {
        // What it sent before it died.
        while take() {}
        var status: Int32 = 0
        while waitpid(serverID, &status, 0) < 0 && errno == EINTR {}
        let signal = status & 0x7f
        guard !kept.isEmpty else { return Self.code(ofServerEndedBy: signal, status >> 8 & 0xff) }
        Standard.complain(
            "error: the server has died, and its clients are killed signal=\(signal) clients=\(kept.count)")
        for client in kept.values {
            guard let process = try? ProcessHandle(adopting: client.process) else { continue }
            try? process.kill()
            // Its descriptor goes only when the process is gone: nobody is to read zeros.
            _ = try? process.waitForExit(timeout: .seconds(60))
            Glibc.close(client.uffd)
        }
        kept = [:]
        return Self.serverDied
    }
}
