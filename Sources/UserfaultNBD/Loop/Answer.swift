#if NBD
internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

/// Something that one thread finds out while another waits for it.
final class Answer<Value: Sendable>: Sendable {
    private let result = Mutex<Result<Value, NBDError>?>(nil)
    private let changed = FutexWord()

    /// The first result counts.
    func set(_ value: Result<Value, NBDError>) {
        result.withLock { $0 = $0 ?? value }
        changed.signal()
    }

    /// - Throws: What was found in place of an answer, or ``NBDError`` at the deadline.
    func wait(until deadline: Deadline) throws(NBDError) -> Value {
        while true {
            let seen = changed.changes
            if let result = result.withLock({ $0 }) { return try result.get() }
            if deadline.hasPassed { throw NBDError(.connection, errno: .timedOut, message: "no answer in time") }
            changed.wait(while: seen, until: deadline)
        }
    }
}
#endif
