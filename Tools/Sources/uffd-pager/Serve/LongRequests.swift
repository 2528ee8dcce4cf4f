import Synchronization

/// The requests that wait until memory is loaded or a server answers: so many that others still get a connection.
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
