internal import Synchronization
internal import UserfaultFD
internal import UserfaultPager

/// Brings what no task has touched, for several tasks at a time.
struct CRIUFinish {
    private let queue: Queue

    private static let mostThreads = 4

    private final class Queue: Sendable {
        private let tasks: [any CRIUTask]
        private let next = Atomic<Int>(0)
        private let failure = Mutex<CRIULazyPagesError?>(nil)

        init(_ tasks: [any CRIUTask]) {
            self.tasks = tasks
        }

        var count: Int { tasks.count }

        /// The first that failed.
        var firstFailure: CRIULazyPagesError? { failure.withLock { $0 } }

        /// The body of each thread.
        func work() {
            while true {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < tasks.count else { return }
                do throws(PagerError) {
                    try tasks[index].finish()
                } catch {
                    let failed = CRIULazyPagesError.task(tasks[index].id, error)
                    failure.withLock { $0 = $0 ?? failed }
                }
            }
        }
    }

    init(_ tasks: [any CRIUTask]) {
        queue = Queue(tasks)
    }

    /// Waits until all tasks are done with.
    ///
    /// - Returns: Why pages of one are lost; the others are served all the same.
    func run() -> CRIULazyPagesError? {
        var threads: [NativeThread] = []
        for _ in 1..<max(1, min(queue.count, Self.mostThreads)) {
            // Fewer threads take longer, no more.
            if let thread = try? NativeThread("uffd-criu", { [queue] in queue.work() }) { threads.append(thread) }
        }
        queue.work()
        for thread in threads { thread.join() }
        return queue.firstFailure
    }
}

/// A connection to a page server, and the thread that receives from it.
final class CRIUPageServerThread: Sendable {
    let connection: CRIUPageServerConnection
    private let thread: NativeThread
    private let isJoined = Atomic<Bool>(false)

    init(_ place: CRIUPageServer) throws(CRIUServerError) {
        let connection = try CRIUPageServerConnection(place)
        self.connection = connection
        do throws(UserfaultError) {
            thread = try NativeThread("uffd-criu-server") { connection.run() }
        } catch {
            throw .connection(error)
        }
    }

    /// Why the server gives no pages any more.
    var error: CRIULazyPagesError? { connection.failure.map { .server($0) } }

    /// Tells the server that all pages are here.
    ///
    /// - Throws: Why it has none any more, too: tasks that have ended in time missed none, but the dump is not let go.
    func finish() throws(CRIULazyPagesError) {
        if let error { throw error }
        stop()
        do throws(CRIUServerError) { try connection.finish() } catch { throw .server(error) }
    }

    func stop() {
        guard !isJoined.exchange(true, ordering: .sequentiallyConsistent) else { return }
        connection.stop()
        thread.join()
    }
}
