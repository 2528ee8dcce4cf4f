import UserfaultFD
import Synchronization
import SystemPackage

/// A thread of its own, for whatever may block: a page fault, a fork, a madvise.
///
/// It belongs to no pool of the runtime, so that its blocking stops nobody else. A thread that is never joined is no
/// harm: the result's process ends, and takes it along.
package final class TestThread: Sendable {
    private let start: Start

    /// What the thread and its creator share.
    private final class Start: Sendable {
        let body: @Sendable () -> Void
        let threadID = Atomic<Int32>(0)
        let isFinished = Atomic<Bool>(false)

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }

        func run() {
            threadID.store(NativeThread.currentID, ordering: .releasing)
            body()
            isFinished.store(true, ordering: .releasing)
        }
    }

    /// Starts a thread.
    package init(_ name: String = "selftest", _ body: @escaping @Sendable () -> Void) throws {
        let start = Start(body)
        self.start = start
        let answer = Threads.start(name) { start.run() }
        guard answer == 0 else {
            // What the host can start was measured before the case; another program has taken it since.
            throw CaseSkip(thisTime: "no thread could be started: \(Errno(rawValue: -answer))")
        }
        try Waiting.until("the thread starts") { start.threadID.load(ordering: .acquiring) != 0 }
    }

    package var threadID: Int32 { start.threadID.load(ordering: .acquiring) }
    package var isFinished: Bool { start.isFinished.load(ordering: .acquiring) }

    /// What the kernel says the thread does: `R` runs, `S` and `D` sleep.
    package var state: Character? {
        guard let text = ProcFile.text("/proc/self/task/\(threadID)/stat"), let end = text.lastIndex(of: ")") else {
            return nil
        }
        return text[text.index(after: end)...].first { $0 != " " }
    }

    /// How many page faults the thread has taken that needed no reading.
    package var faults: Int {
        guard let text = ProcFile.text("/proc/self/task/\(threadID)/stat"), let end = text.lastIndex(of: ")") else {
            return 0
        }
        let fields = text[text.index(after: end)...].split(separator: " ")
        return fields.count > 7 ? Int(fields[7]) ?? 0 : 0
    }

    /// Whether the thread has left the processor to wait.
    ///
    /// The state alone does not tell: a thread says that it sleeps, looks once more whether it has to, and may be
    /// preempted in between. The kernel tells what system call a thread is in only once it is really off.
    package var isAsleep: Bool {
        guard let state, state == "S" || state == "D" else { return false }
        return ProcFile.text("/proc/self/task/\(threadID)/syscall").map { !$0.hasPrefix("running") } ?? true
    }

    /// Waits until the thread has done its work.
    package func join(
        within limit: Duration = Waiting.patience, _ what: String = "the thread goes on", file: String = #fileID,
        line: Int = #line
    ) throws {
        try Waiting.until(what, within: limit, file: file, line: line) { isFinished }
    }

    /// Waits until the thread is asleep in the kernel.
    package func waitAsleep(file: String = #fileID, line: Int = #line) throws {
        try Waiting.until("the thread sleeps", file: file, line: line) { isAsleep }
    }

    /// Whether the thread is asleep in the kernel, each time of several that it is looked at.
    package var isAsleepForAWhile: Bool {
        (0..<12).allSatisfy { _ in
            NativeThread.yield()
            return isAsleep
        }
    }

    /// Fails if the thread is not asleep, or has gone on: what it must not do yet.
    ///
    /// Looked at several times with other threads running in between, since a wake-up takes a moment to show.
    package func expectStillAsleep(_ why: String, file: String = #fileID, line: Int = #line) throws {
        for _ in 0..<12 {
            NativeThread.yield()
            try expect(
                !isFinished && isAsleep, "the thread stays asleep: \(why)",
                seen: isFinished ? "it went on" : "its state is \(state.map(String.init) ?? "gone")", file: file,
                line: line)
        }
    }
}
