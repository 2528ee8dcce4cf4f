import Synchronization

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

    /// Waits until the call is blocked in the kernel, as one that has raised an event is.
    package func waitBlocked(file: String = #fileID, line: Int = #line) throws {
        try thread.waitAsleep(file: file, line: line)
        try thread.expectStillAsleep("its event was not read yet", file: file, line: line)
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
