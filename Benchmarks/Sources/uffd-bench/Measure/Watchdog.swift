import Dispatch
import Foundation
import Synchronization

/// Ends the process where a measurement does not end by itself: a thread whose fault nobody resolves waits for ever.
enum Watchdog {
    private static let scenario = Mutex("")

    /// Names what is being measured while the body runs.
    static func watching<Result>(
        _ name: String, seconds limit: Int, _ body: () throws -> Result
    ) rethrows -> Result {
        scenario.withLock { $0 = name }
        let item = DispatchWorkItem { giveUp("did not end within \(limit) s") }
        DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(limit), execute: item)
        defer { item.cancel() }
        return try body()
    }

    /// Ends the process; what was measured is lost.
    static func giveUp(_ reason: String) -> Never {
        let name = scenario.withLock { $0 }
        FileHandle.standardError.write(Data("\nuffd-bench: \(name): \(reason)\n".utf8))
        _exit(2)
    }
}
