import Synchronization

@testable import UserfaultFD

/// A thread of its own, which a page fault may block: the threads that run tests are a pool's.
final class Worker<Value: Sendable>: Sendable {
    struct TimedOut: Error {}

    private final class Job: Sendable {
        let body: @Sendable () -> Value
        let value = Mutex<Value?>(nil)

        init(_ body: @escaping @Sendable () -> Value) { self.body = body }

        func run() {
            let result = body()
            value.withLock { $0 = result }
        }
    }

    private let job: Job
    private let thread: NativeThread

    init(_ body: @escaping @Sendable () -> Value) {
        job = Job(body)
        do {
            thread = try NativeThread("test-worker") { [job] in job.run() }
        } catch {
            fatalError("no thread: \(error)")
        }
    }

    /// What the thread made, waited for until the deadline; to be called once.
    func value(within limit: Duration = .seconds(20)) throws -> Value {
        guard thread.join(until: Deadline(after: limit)), let value = job.value.withLock({ $0 }) else {
            throw TimedOut()
        }
        return value
    }
}

/// One byte of memory, loaded by the calling thread.
func load(_ address: UInt) -> UInt8 {
    UnsafePointer<UInt8>(bitPattern: address)!.pointee
}

/// One byte of memory, stored by the calling thread.
func store(_ value: UInt8, at address: UInt) {
    UnsafeMutablePointer<UInt8>(bitPattern: address)!.pointee = value
}

/// Repeats a question until it is answered with yes, or the deadline is over.
func eventually(within limit: Duration = .seconds(10), _ question: () throws -> Bool) rethrows -> Bool {
    let deadline = Deadline(after: limit)
    while !deadline.hasPassed {
        if try question() { return true }
        NativeThread.yield()
    }
    return try question()
}
