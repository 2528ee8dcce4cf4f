import CSelftestSupport
import Glibc
import SystemPackage

/// The process of one result: started from this very program, watched until it ends or its time is up, then cleared
/// away together with everything that it left behind.
final class CaseProcess {
    /// All that is known when a process has ended.
    struct Ending {
        enum Cause {
            case exited(code: Int32)
            case signaled(Int32)
            /// The time was up; what the kernel told about the process before it was killed.
            case hung([String])
        }

        var cause: Cause
        var messages: [CaseMessage] = []
        var output = ""
        var strays = Strays()
        var seconds = 0.0
    }

    /// What comes first: the end of one of several processes, or a signal.
    enum Event {
        case ended(CaseProcess, Ending.Cause)
        case signal(Int32)
    }

    /// A wait that ends so much too late shows that the runner was stopped, or the machine was suspended: the processes may
    /// have been stopped too, and this time does not count.
    private static let mostOversleep = Duration.seconds(1)
    /// Short, so that nearly all of the time for which the runner is stopped shows as that.
    private static let longestWait = Duration.milliseconds(500)
    /// How much of what a case prints is kept; the rest is read and dropped.
    static let outputLimit = 2048

    /// Where a process cannot be polled, it is looked after so often.
    private static let blindWait = Duration.milliseconds(5)

    let pid: Int32
    /// Nil if a filter refuses pidfd_open(2), as those of old container runtimes do.
    private let pidfd: FileDescriptor?
    private let output: FileDescriptor
    private let channel: FileDescriptor
    private let start = ContinuousClock.now
    /// How long it may take: longer than was said if there turns out to be no processor for it.
    private(set) var limit: Duration
    private var isExtensible: Bool
    /// The process, what it prints and what it sends.
    private var waits: [pollfd]
    private var buffer = MessageBuffer()
    private var printed = ""

    /// Starts the process of `identity`.
    ///
    /// - Parameters:
    ///   - environment: Variables for the process besides those of the runner, each `NAME=value`.
    ///   - limit: How long it may take.
    ///   - isExtensible: Whether it may take longer if there is no processor for it.
    init(
        identity: String, environment: [String] = [], limit: Duration, isExtensible: Bool = false
    ) throws {
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
            arguments, environment: environment, output: output.writeEnd.rawValue,
            descriptors: [channel.writeEnd.rawValue])
        pidfd = try Processes.pidfd(of: pid)
        self.limit = limit
        self.isExtensible = isExtensible
        waits = [pidfd, output.readEnd, channel.readEnd].map {
            pollfd(fd: $0?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
        }
    }

    /// Waits until one of the processes has ended, or its time is up, or a signal has come.
    static func waitForOne(of processes: [CaseProcess], signals: FileDescriptor) -> Event {
        while true {
            for process in processes where process.isOverdue {
                return .ended(process, process.endIfThere() ?? process.stop())
            }
            let now = ContinuousClock.now
            let longestWait = processes.contains { $0.pidfd == nil } ? blindWait : longestWait
            let left = max(.zero, min(processes.map { $0.deadline - now }.min() ?? longestWait, longestWait))
            var waits = processes.flatMap(\.waits) + [pollfd(fd: signals.rawValue, events: Int16(POLLIN), revents: 0)]
            let ready = poll(&waits, nfds_t(waits.count), Int32(left.inSeconds * 1000) + 1)
            let stopped = ContinuousClock.now - now - left
            if stopped > mostOversleep { for process in processes { process.limit += stopped } }
            guard ready > 0 || longestWait == blindWait else { continue }
            if waits[waits.count - 1].revents != 0, let signal = readSignal(signals) { return .signal(signal) }
            for (index, process) in processes.enumerated() {
                if let cause = process.look(at: waits[(3 * index)..<(3 * index + 3)]) { return .ended(process, cause) }
            }
        }
    }

    private var deadline: ContinuousClock.Instant { start + limit }

    /// Whether its time is up; when it is for the first time, the host is asked whether it had any.
    private var isOverdue: Bool {
        guard deadline <= ContinuousClock.now else { return false }
        guard isExtensible else { return true }
        isExtensible = false
        limit = limit * Crowding.factor
        return deadline <= ContinuousClock.now
    }

    /// Reads what has come; returns how the process has ended, if it has.
    private func look(at ready: ArraySlice<pollfd>) -> Ending.Cause? {
        let ready = Array(ready)
        drain()
        // Both ends closed, yet the process lives: only its end is worth waiting for.
        for index in 1...2 where ready[index].revents == POLLHUP { waits[index].fd = -1 }
        guard ready[0].revents != 0 || pidfd == nil else { return nil }
        return endIfThere()
    }

    /// How the process has ended, if it has.
    private func endIfThere() -> Ending.Cause? {
        guard let end = reap(pid) else { return nil }
        return end.signal != 0 ? .signaled(end.signal) : .exited(code: end.code)
    }

    /// Ends a process whose time is up.
    private func stop() -> Ending.Cause {
        let report = HangReport.lines(pid: pid)
        return kill() ? .hung(report) : .hung(report + ["SIGKILL does not end it: process \(pid) stays behind"])
    }

    /// All that is known of the process after its end, when everything that is left of it is removed.
    ///
    /// - Parameter others: Children of the runner that this process has not left behind.
    func ending(_ cause: Ending.Cause, sparing others: Set<Int32>) -> Ending {
        defer { close() }
        var ending = Ending(cause: cause)
        ending.seconds = (ContinuousClock.now - start).inSeconds
        // What was written before the end is still in the pipes.
        drain()
        ending.messages = buffer.take(CaseMessage.self)
        ending.output = printed
        ending.strays = Strays.kill(sparing: others)
        return ending
    }

    /// Ends the process, of which nobody wants to know anything any more.
    func abandon() {
        _ = kill()
        close()
    }

    private func close() {
        [pidfd, output, channel].forEach { try? $0?.close() }
    }

    private func drain() {
        Pipe.readAvailable(channel) { buffer.append($0) }
        Pipe.readAvailable(output) { bytes in
            let room = Self.outputLimit - printed.utf8.count
            guard room > 0 else { return }
            printed += String(decoding: bytes.prefix(room), as: UTF8.self)
            if bytes.count > room { printed += "\n[output cut after \(Self.outputLimit) bytes]" }
        }
    }

    /// Kills the session of the process and returns whether it is gone; one that waits in the kernel may stay.
    private func kill() -> Bool {
        _ = Glibc.kill(-pid, SIGKILL)
        return Processes.waitForEnd(of: pid, pidfd)
    }
}
