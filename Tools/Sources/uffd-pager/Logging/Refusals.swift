import Logging
import Synchronization

/// Logs who was refused: at most one line in ten seconds, since anybody can connect as often as he likes.
final class Refusals: Sendable {
    private struct State {
        var next = ContinuousClock.now
        /// Since the last line.
        var count = 0
    }

    private let state = Mutex(State())
    private let logger: Logger
    private let message: Logger.Message

    /// - Parameter message: What has happened to each.
    init(_ message: Logger.Message, _ logger: Logger) {
        self.message = message
        self.logger = logger
    }

    func note(_ text: String) {
        let count = state.withLock { state in
            state.count += 1
            guard .now >= state.next else { return 0 }
            defer { state = State(next: .now + .seconds(10)) }
            return state.count
        }
        guard count > 0 else { return }
        logger.warning(message, metadata: ["error": "\(text)", "count": "\(count)"])
    }
}
