import CUserfaultFD
import Synchronization

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
    private let thread: cuffd_thread_t

    init(_ body: @escaping @Sendable () -> Value) {
        job = Job(body)
        let erased: @Sendable () -> Void = { [job] in job.run() }
        thread = startThread(erased)
    }

    /// What the thread made, waited for until the deadline; to be called once.
    func value(within milliseconds: CInt = 20_000) throws -> Value {
        guard cuffd_thread_join(thread, milliseconds) == 0, let value = job.value.withLock({ $0 }) else {
            throw TimedOut()
        }
        return value
    }
}

private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

private func startThread(_ body: @escaping @Sendable () -> Void) -> cuffd_thread_t {
    var thread: cuffd_thread_t = 0
    let answer = cuffd_thread_create(
        &thread, "test-worker", 0, { Unmanaged<Body>.fromOpaque($0!).takeRetainedValue().run() },
        Unmanaged.passRetained(Body(body)).toOpaque())
    precondition(answer == 0, "no thread: \(answer)")
    return thread
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
func eventually(within milliseconds: UInt64 = 10_000, _ question: () throws -> Bool) rethrows -> Bool {
    let deadline = cuffd_monotonic_nanoseconds() + milliseconds * 1_000_000
    while cuffd_monotonic_nanoseconds() < deadline {
        if try question() { return true }
        _ = cuffd_sched_yield()
    }
    return try question()
}
