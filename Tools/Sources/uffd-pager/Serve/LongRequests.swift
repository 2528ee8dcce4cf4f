import Synchronization

/// How many requests of each kind may wait: so few that others still get a connection.
struct RequestLimits: Sendable {
    /// Wait until memory is loaded or can be read.
    let loading = LongRequests(limit: 128)
    /// Wait until memory is loaded, and a machine is removed then.
    let removing = LongRequests(limit: 64)
    /// Remove a machine without loading, for which the kernel may take its time.
    let ending = LongRequests(limit: 32)
}

/// Requests that wait until memory is loaded or a server answers.
final class LongRequests: Sendable {
    private let limit: Int
    private let count = Mutex(0)

    init(limit: Int) { self.limit = limit }

    /// - Throws: ``ControlError/tooManyRequests(_:)`` if there are as many.
    nonisolated(nonsending) func run<Value>(_ body: nonisolated(nonsending) () async throws -> Value) async throws
        -> Value
    {
        let isFree = count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
        guard isFree else { throw ControlError.tooManyRequests(limit) }
        defer { count.withLock { $0 -= 1 } }
        return try await body()
    }
}
