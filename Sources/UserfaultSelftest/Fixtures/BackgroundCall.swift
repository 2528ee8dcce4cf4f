import Synchronization
package import UserfaultFD

/// A call made on a thread of its own, because it may block: `madvise`, `munmap` or `fork` that raises an event.
package final class BackgroundCall<Answer: Sendable>: Sendable {
    package let thread: TestThread
    private let shared: Shared

    private final class Shared: Sendable {
        let result = Mutex<Result<Answer, any Error>?>(nil)
    }

    /// Starts the call.
    package init(_ name: String = "caller", _ call: @escaping @Sendable () throws -> Answer) throws {
        let shared = Shared()
        self.shared = shared
        thread = try TestThread(name) {
            let result = Result { try call() }
            shared.result.withLock { $0 = result }
        }
    }

    package var isFinished: Bool { thread.isFinished }

    /// Waits until the call is blocked in the kernel, as one that touches what is guarded is.
    ///
    /// A call sleeps for a moment for many reasons, a lock for one; so it must be seen asleep several times on end.
    package func waitBlocked(file: String = #fileID, line: Int = #line) throws {
        try Waiting.until("the call waits", file: file, line: line) {
            try expect(!isFinished, "the call waits", seen: "it has returned", file: file, line: line)
            return thread.isAsleepForAWhile
        }
    }

    /// Waits until the call waits for the event to be read that it has raised.
    package func waitBlocked(
        on uffd: borrowing UserfaultFD, file: String = #fileID, line: Int = #line
    ) throws {
        try waitEvent(of: uffd, file: file, line: line)
        try expect(
            !isFinished, "the call waits for its event to be read", seen: "it has returned", file: file, line: line)
        try thread.waitAsleep(file: file, line: line)
        try thread.expectStillAsleep("its event was not read yet", file: file, line: line)
    }

    /// Waits until the call has raised an event, or has returned without.
    package func waitEvent(
        of uffd: borrowing UserfaultFD, file: String = #fileID, line: Int = #line
    ) throws {
        try Waiting.until("the call raises an event or returns", file: file, line: line) {
            try uffd.poll(timeout: .zero) || isFinished
        }
    }

    /// Waits for the call to return; answers what it answered, or throws what it threw.
    @discardableResult
    package func finish(
        _ what: String = "the call returns", file: String = #fileID, line: Int = #line
    ) throws -> Answer {
        try thread.join(what, file: file, line: line)
        return try shared.result.withLock { $0 }!.get()
    }
}
