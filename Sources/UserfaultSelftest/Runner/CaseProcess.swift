import CSelftestSupport
import Glibc
import SystemPackage

/// The process of one result: started from this very program, watched until it ends or its time is up, then cleared
/// away together with everything that it left behind.
struct CaseProcess {
    /// All that is known when a process has ended.
    struct Ending {
        enum Cause {
            case exited(code: Int32)
            case signaled(Int32)
            /// The time was up; what the kernel told about the process before it was killed.
            case hung([String])
            /// The runner was told to stop.
            case interrupted(signal: Int32)
        }

        var cause: Cause
        var messages: [CaseMessage] = []
        var output = ""
        /// Processes that the case started and did not wait for.
        var strays = 0
        var seconds = 0.0
    }

    /// How much of what a case prints is kept; the rest is read and dropped.
    static let outputLimit = 2048

    private let pid: Int32
    private let pidfd: FileDescriptor
    private let output: FileDescriptor
    private let channel: FileDescriptor
    private let start = ContinuousClock.now

    /// Starts the process of `identity`.
    ///
    /// - Parameter environment: Variables for the process besides those of the runner, each `NAME=value`.
    init(identity: String, environment: [String] = []) throws {
        let arguments = ["uffd-selftest", "run-case", identity, "--channel", "3", "--runner", "\(getpid())"]
        let output = try Pipe.open()
        let channel = try Pipe.open()
        defer {
            try? output.writeEnd.close()
            try? channel.writeEnd.close()
        }
        self.output = output.readEnd
        self.channel = channel.readEnd
        pid = try spawnSelf(
            arguments, environment: environment, output: output.writeEnd.rawValue, channel: channel.writeEnd.rawValue)
        pidfd = try FileDescriptor(rawValue: checked(css_pidfd_open(pid)))
    }

    /// Waits until the process has ended, at most `limit`, and removes everything that is left of it.
    ///
    /// - Parameters:
    ///   - limit: How long it may take, counted from its start.
    ///   - signals: A signal descriptor that ends the wait early.
    ///   - ownProcesses: Children of the runner that no case left behind.
    func wait(limit: Duration, signals: FileDescriptor, sparing ownProcesses: Set<Int32>) -> Ending {
        defer { [pidfd, output, channel].forEach { try? $0.close() } }
        var ending = Ending(cause: .exited(code: 0))
        var buffer = MessageBuffer()
        ending.cause = watch(until: start + limit, signals: signals, &ending, &buffer)
        ending.seconds = (ContinuousClock.now - start).inSeconds
        // What was written before the end is still in the pipes.
        drain(&ending, &buffer)
        ending.messages = buffer.take(CaseMessage.self)
        ending.strays = Self.killStrays(sparing: ownProcesses)
        return ending
    }

    private func watch(
        until deadline: ContinuousClock.Instant, signals: FileDescriptor, _ ending: inout Ending,
        _ buffer: inout MessageBuffer
    ) -> Ending.Cause {
        var waits = [pidfd, output, channel, signals].map {
            pollfd(fd: $0.rawValue, events: Int16(POLLIN), revents: 0)
        }
        while true {
            let left = deadline - ContinuousClock.now
            guard left > .zero else {
                let report = HangReport.lines(pid: pid)
                return kill() ? .hung(report) : .hung(report + ["SIGKILL does not end it: process \(pid) stays behind"])
            }
            guard poll(&waits, nfds_t(waits.count), Int32(left.inSeconds * 1000) + 1) > 0 else { continue }
            if waits[3].revents != 0, let signal = readSignal(signals) {
                _ = kill()
                return .interrupted(signal: signal)
            }
            if waits[1].revents != 0 || waits[2].revents != 0 {
                drain(&ending, &buffer)
                // Both ends closed, yet the process lives: only its end is worth waiting for.
                if waits[1].revents == POLLHUP { waits[1].fd = -1 }
                if waits[2].revents == POLLHUP { waits[2].fd = -1 }
            }
            if waits[0].revents != 0, let end = reap(pid) {
                return end.signal != 0 ? .signaled(end.signal) : .exited(code: end.code)
            }
        }
    }

    private func drain(_ ending: inout Ending, _ buffer: inout MessageBuffer) {
        Pipe.readAvailable(channel) { buffer.append($0) }
        Pipe.readAvailable(output) { bytes in
            let room = Self.outputLimit - ending.output.utf8.count
            guard room > 0 else { return }
            ending.output += String(decoding: bytes.prefix(room), as: UTF8.self)
            if bytes.count > room { ending.output += "\n[output cut after \(Self.outputLimit) bytes]" }
        }
    }

    /// Kills the session of the process and answers whether it is gone; one that waits in the kernel may stay.
    private func kill() -> Bool {
        _ = Glibc.kill(-pid, SIGKILL)
        var wait = pollfd(fd: pidfd.rawValue, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 5000) > 0 && reap(pid) != nil
    }

    /// Kills what the process left behind.
    ///
    /// As a subreaper the runner has become the parent of all of it.
    private static func killStrays(sparing ownProcesses: Set<Int32>) -> Int {
        var killed = 0
        while true {
            let strays = children().subtracting(ownProcesses)
            guard !strays.isEmpty else { return killed }
            for stray in strays {
                _ = Glibc.kill(stray, SIGKILL)
                guard waitForEnd(of: stray) else { return killed }
                killed += 1
            }
        }
    }

    private static func waitForEnd(of pid: Int32) -> Bool {
        let raw = css_pidfd_open(pid)
        guard raw >= 0 else { return reap(pid) != nil }
        defer { close(raw) }
        var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 5000) > 0 && reap(pid) != nil
    }

    /// The processes whose parent is this one.
    private static func children() -> Set<Int32> {
        if let text = ProcFile.text("/proc/self/task/\(getpid())/children") {
            return Set(text.split(separator: " ").compactMap { Int32($0) })
        }
        // Kernels without CONFIG_PROC_CHILDREN: the parent is the second field after the name.
        return Set(
            ProcFile.entries("/proc").compactMap { Int32($0) }.filter { pid in
                let fields = ProcFile.line("/proc/\(pid)/stat")?.split(separator: ") ").last?.split(separator: " ")
                return fields.map { $0.count > 1 && $0[1] == "\(getpid())" } ?? false
            })
    }
}
