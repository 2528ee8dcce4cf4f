import CSelftestSupport
import FoundationEssentials
import Glibc
package import SystemPackage

/// What the runner asks of the guardian, one line of JSON each.
enum GuardianRequest: Codable {
    /// Takes the lock that keeps runs apart, which anything else needs first.
    case lock(milliseconds: Int)
    case set(path: String, value: String)
    case restore(path: String)
    /// Makes the pool of huge pages so large that `free` pages are free.
    case hugePages(free: Int)
    case swap
    case makeMemoryGroup
    case removeMemoryGroup
    /// Keeps account of the pages that a result breaks.
    case keepBrokenPages
    case healBrokenPages
}

enum GuardianReply: Codable {
    /// Something that a person should know.
    case note(String)
    /// The answer is a path where there is one to tell.
    case done(String)
    case refused(String)
    /// Another run has kept the lock, which is told.
    case locked(String)
    /// What there will be to undo from now on; sent before the change is made.
    case journal(HostChanges.Journal)
    /// Everything is undone, except for what is named.
    case undone(failures: [String])
}

/// The process that changes the host's settings for a run, and puts them back when the run ends, however it ends.
///
/// It lives in a session of its own, where no key on the terminal reaches it, and waits for requests. When the runner's
/// end of the channel closes, because the run is over or because the runner was killed, it undoes what it did.
final class Guardian {
    let pid: Int32
    private let channel: FileDescriptor
    private let lock: RunLock
    private let signals: FileDescriptor?
    private var buffer = MessageBuffer()
    private var replies: [GuardianReply] = []
    /// What the guardian would have to undo now.
    private var journal = HostChanges.Journal()
    /// Whether it has ended without being asked to.
    private(set) var isDead = false

    /// Starts the guardian.
    ///
    /// - Parameters:
    ///   - lock: What keeps runs apart; the guardian takes it for its runner too.
    ///   - signals: A signal descriptor that ends the wait for an answer.
    init(_ lock: RunLock, signals: FileDescriptor?) throws(Errno) {
        self.lock = lock
        self.signals = signals
        var ends: [Int32] = [0, 0]
        try checked(css_socket_pair(&ends))
        channel = FileDescriptor(rawValue: ends[0])
        defer { close(ends[1]) }
        let handed = lock.descriptors
        let options = handed.enumerated().flatMap { [$1.option, "\($0 + 4)"] }
        pid = try spawnSelf(
            ["uffd-selftest", "guard"] + options, environment: [], output: STDERR_FILENO,
            descriptors: [ends[1]] + handed.map(\.descriptor))
    }

    /// Asks for a change and waits until it is made.
    ///
    /// - Parameter tell: Takes what a person should know meanwhile.
    /// - Returns: Why it cannot be made, or what is there to tell of it.
    func ask(_ request: GuardianRequest, tell: (String) -> Void) -> Result<String, Refusal> {
        MessageChannel(descriptor: channel).send(request)
        while let reply = receive(interruptibly: true) {
            switch reply {
            case .note(let note): tell(note)
            case .done(let answer): return .success(answer)
            case .refused(let reason): return .failure(Refusal(reason: reason))
            case .locked(let reason): return .failure(Refusal(reason: reason, cause: .chance))
            case .journal(let now): journal = now
            case .undone: break
            }
        }
        return .failure(Refusal(reason: "the process that makes system changes did not answer"))
    }

    struct Refusal: Error, CustomStringConvertible {
        let reason: String
        var cause = SkipCause.host
        /// Whether another run has kept the host to itself.
        var isByOtherRun: Bool { cause == .chance }

        var description: String { reason }
    }

    /// Has everything undone and returns when it is.
    ///
    /// - Returns: What could not be undone; nil if the guardian has died before it told.
    func finish() -> [String]? {
        _ = shutdown(channel.rawValue, Int32(SHUT_WR))
        var answer: [String]?
        while let reply = receive(interruptibly: false) {
            switch reply {
            case .journal(let now): journal = now
            case .undone(let failures): answer = failures
            case .note, .done, .refused, .locked: break
            }
        }
        if answer != nil { end() }
        return answer
    }

    /// Undoes in this process what a guardian has left that is dead; returns what could not be undone.
    func undoRemains() -> [String] {
        end()
        // The guardian had nothing to undo before it had the lock, which this process still holds.
        var changes = HostChanges(journal) { [file = lock.file] in file?.keep($0) }
        return lock.troubles(changes.undoAll())
    }

    private func end() {
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
                isDead = true
                return nil
            }
            buffer.append(bytes[..<count])
        }
    }
}

/// The inside of the guardian's process.
package enum GuardianBody {
    /// Serves requests from `channel` until it closes, undoes everything, and ends the process.
    package static func runAndExit(channel: FileDescriptor, lock: RunLock) -> Never {
        // The runner may go away at any moment; then there is still much to undo.
        signal(SIGPIPE, SIG_IGN)
        let replies = MessageChannel(descriptor: channel)
        var buffer = MessageBuffer()
        var changes = HostChanges {
            lock.file?.keep($0)
            replies.send(GuardianReply.journal($0))
        }
        var bytes = [UInt8](repeating: 0, count: 4096)
        while let count = try? bytes.withUnsafeMutableBytes({ try channel.read(into: $0) }), count > 0 {
            buffer.append(bytes[..<count])
            for request in buffer.take(GuardianRequest.self) {
                guard case .lock(let milliseconds) = request else {
                    replies.send(changes.make(request))
                    continue
                }
                // The runner asks for nothing more while it waits, so that there is nothing to read but its end.
                let refusal = lock.take(within: .milliseconds(milliseconds), unless: channel) {
                    replies.send(GuardianReply.note($0))
                }
                if refusal == nil, let journal = lock.file?.journal {
                    for note in changes.undoRemains(journal) {
                        replies.send(GuardianReply.note("an earlier run has not put the host back: \(note)"))
                    }
                }
                replies.send(refusal.map(lock.isThere ? GuardianReply.locked : GuardianReply.refused) ?? .done(""))
            }
        }
        let failures = lock.troubles(changes.undoAll())
        // Where the runner is gone, standard error is all that is left to tell.
        if !replies.send(GuardianReply.undone(failures: failures)) {
            for failure in failures { ReportOutput(.standardError).line("uffd-selftest: not put back: \(failure)") }
        }
        _exit(0)
    }
}
