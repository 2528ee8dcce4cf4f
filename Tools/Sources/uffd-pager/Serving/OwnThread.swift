import Glibc

/// Runs what waits on a thread of its own: the pool's, which are few, answer the control socket.
///
/// Without a thread it runs here: late is better than never.
func onOwnThread<Value: Sendable, Failure: Error>(
    _ body: @escaping @Sendable () throws(Failure) -> Value
) async throws(Failure) -> Value {
    let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
        let work = Work { continuation.resume(returning: Result { () throws(Failure) in try body() }) }
        if !work.start() { work.run() }
    }
    return try result.get()
}

/// What a thread runs.
private final class Work: Sendable {
    let run: @Sendable () -> Void

    init(_ run: @escaping @Sendable () -> Void) { self.run = run }

    /// - Returns: `false` if there is no thread.
    func start() -> Bool {
        var thread = pthread_t()
        let passed = Unmanaged.passRetained(self)
        guard pthread_create(&thread, nil, runWork, passed.toOpaque()) == 0 else {
            passed.release()
            return false
        }
        pthread_detach(thread)
        return true
    }
}

private func runWork(_ passed: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    Unmanaged<Work>.fromOpaque(passed!).takeRetainedValue().run()
    return nil
}
