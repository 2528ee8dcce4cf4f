import CSelftestSupport
import FoundationEssentials
import Glibc
package import SystemPackage

/// What the runner asks of the guardian, one line of JSON each.
enum GuardianRequest: Codable {
    case set(path: String, value: String)
    case restore(path: String)
    /// Makes the pool of huge pages so large that `free` pages are free.
    case hugePages(free: Int)
    case swap
    case makeMemoryGroup
    case removeMemoryGroup
}

enum GuardianReply: Codable {
    /// Another run holds the lock on the host's settings.
    case waiting(forProcess: String)
    /// The answer is a path where there is one to tell.
    case done(String)
    case refused(String)
}

/// The process that changes the host's settings for a run, and puts them back when the run ends, however it ends.
///
/// It lives in a session of its own, where no key on the terminal reaches it, and waits for requests. When the runner's
/// end of the channel closes, because the run is over or because the runner was killed, it undoes what it did.
final class Guardian {
    let pid: Int32
    private let channel: FileDescriptor
    private let signals: FileDescriptor?
    private var buffer = MessageBuffer()
    private var replies: [GuardianReply] = []

    /// Starts the guardian.
    ///
    /// - Parameter signals: A signal descriptor that ends the wait for an answer.
    init(signals: FileDescriptor?) throws(Errno) {
        self.signals = signals
        var ends: [Int32] = [0, 0]
        try checked(css_socket_pair(&ends))
        channel = FileDescriptor(rawValue: ends[0])
        defer { close(ends[1]) }
        pid = try spawnSelf(["uffd-selftest", "guard"], environment: [], output: STDERR_FILENO, channel: ends[1])
    }

    /// Asks for a change and waits until it is made.
    ///
    /// - Parameter waiting: Called with the other run's process id when this has to wait for it.
    /// - Returns: Why it cannot be made, or what is there to tell of it.
    func ask(_ request: GuardianRequest, waiting: (String) -> Void) -> Result<String, Refusal> {
        MessageChannel(descriptor: channel).send(request)
        while let reply = receive(interruptibly: true) {
            switch reply {
            case .waiting(let process): waiting(process)
            case .done(let answer): return .success(answer)
            case .refused(let reason): return .failure(Refusal(reason: reason))
            }
        }
        return .failure(Refusal(reason: "the process that makes system changes did not answer"))
    }

    struct Refusal: Error {
        let reason: String
    }

    /// Has everything undone and returns when it is.
    func finish() {
        _ = shutdown(channel.rawValue, Int32(SHUT_WR))
        while receive(interruptibly: false) != nil {}
        try? channel.close()
        var status: Int32 = 0
        waitpid(pid, &status, 0)
    }

    /// The next reply; nil when the guardian has ended or a signal has come.
    private func receive(interruptibly: Bool) -> GuardianReply? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            replies += buffer.take(GuardianReply.self)
            if !replies.isEmpty { return replies.removeFirst() }
            var waits = [channel.rawValue, signals?.rawValue ?? -1].map {
                pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
            }
            guard poll(&waits, interruptibly ? 2 : 1, -1) > 0 else { continue }
            if interruptibly, waits[1].revents != 0 { return nil }
            guard let count = try? bytes.withUnsafeMutableBytes({ try channel.read(into: $0) }), count > 0 else {
                return nil
            }
            buffer.append(bytes[..<count])
        }
    }
}

/// The inside of the guardian's process.
package enum GuardianBody {
    /// Serves requests from `channel` until it closes, undoes everything, and ends the process.
    package static func runAndExit(channel: FileDescriptor) -> Never {
        let replies = MessageChannel(descriptor: channel)
        var buffer = MessageBuffer()
        var changes = HostChanges()
        let lock = RunLock()
        var bytes = [UInt8](repeating: 0, count: 4096)
        while let count = try? bytes.withUnsafeMutableBytes({ try channel.read(into: $0) }), count > 0 {
            buffer.append(bytes[..<count])
            for request in buffer.take(GuardianRequest.self) {
                guard lock.take(waitingIn: channel, waiting: { replies.send(GuardianReply.waiting(forProcess: $0)) })
                else {
                    replies.send(GuardianReply.refused("another uffd-selftest run does not let go of \(RunLock.path)"))
                    continue
                }
                replies.send(changes.make(request))
            }
        }
        changes.undoAll()
        _exit(0)
    }
}

/// Keeps two runs from changing the host's settings at the same time.
///
/// The kernel lets go of it when the process ends.
struct RunLock {
    static let path = "/run/uffd-selftest.lock"
    private static let patience = Duration.seconds(300)

    private let file: FileDescriptor?

    init() {
        file = try? FileDescriptor.open(
            Self.path, .readWrite, options: [.create, .closeOnExec, .noFollow], permissions: .ownerReadWrite)
    }

    /// Takes the lock, and waits for it until the runner has gone or the patience has.
    func take(waitingIn channel: FileDescriptor, waiting: (String) -> Void) -> Bool {
        guard let file else { return false }
        let deadline = ContinuousClock.now + Self.patience
        var told = false
        while flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 {
            if !told {
                waiting(ProcFile.line(Self.path) ?? "unknown")
                told = true
            }
            // Locks cannot be polled, so look ten times a second, and at once when the runner goes away: it asks for
            // nothing more while it waits, so that there is nothing to read but its end.
            var gone = pollfd(fd: channel.rawValue, events: Int16(POLLIN), revents: 0)
            guard poll(&gone, 1, 100) == 0, ContinuousClock.now < deadline else { return false }
        }
        try? file.resize(to: 0)
        _ = try? file.writeAll(toAbsoluteOffset: 0, "\(getpid())\n".utf8)
        return true
    }
}
