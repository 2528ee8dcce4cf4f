import Synchronization
import UserfaultFD

/// Runs a body on a thread of its own, which may wait for pages without holding up the test's.
final class Toucher<Value: Sendable>: Sendable {
    private let thread = Mutex<NativeThread?>(nil)
    private let result: Result

    init(_ body: @escaping @Sendable () -> Value) {
        let result = Result()
        self.result = result
        do {
            let started = try NativeThread("toucher") { result.value.withLock { $0 = body() } }
            thread.withLock { $0 = started }
        } catch {
            fatalError("no thread: \(error)")
        }
    }

    /// Waits for its end: `false` where that takes too long.
    func join(seconds: Int32 = 20) -> Bool {
        thread.withLock { thread in
            guard let joined = thread else { return true }
            guard joined.join(until: Deadline(after: .seconds(seconds))) else { return false }
            thread = nil
            return true
        }
    }

    /// The body's result, or `nil` where it takes too long.
    func value() -> Value? { join() ? result.value.withLock(\.self) : nil }

    /// The result of a body that has a thread of its own, or `nil` where it takes too long.
    static func value(_ body: @escaping @Sendable () -> Value) -> Value? { Toucher(body).value() }

    private final class Result: Sendable {
        let value = Mutex<Value?>(nil)
    }
}

/// Something that is not copied, shared.
final class Shared<Value: ~Copyable & Sendable>: Sendable {
    let value: Value

    init(_ value: consuming Value) {
        self.value = value
    }
}
