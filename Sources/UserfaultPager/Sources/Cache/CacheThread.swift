internal import Synchronization
internal import UserfaultFD

/// What waits for its turn: the first one in is the first one out.
struct Line<Element> {
    private var items: [Element] = []
    private var first = 0

    mutating func append(_ item: Element) { items.append(item) }

    mutating func next() -> Element? {
        guard first < items.count else { return nil }
        defer {
            first += 1
            if first == items.count {
                items.removeAll(keepingCapacity: first < 1024)
                first = 0
            } else if first > 1024, first > items.count / 2 {
                items.removeFirst(first)
                first = 0
            }
        }
        return items[first]
    }
}

/// A thread that waits for a disk in the place of others.
final class CacheThread: Sendable {
    typealias Task = @Sendable () -> Void

    private struct State {
        var urgent = Line<Task>()
        var others = Line<Task>()
        var isClosed = false
    }

    private let state = Mutex(State())
    private let changed = FutexWord()

    /// Starts a thread that ends after ``close()``.
    static func start(_ name: String) throws(UserfaultError) -> CacheThread {
        let thread = CacheThread()
        try NativeThread.detached(name) { thread.run() }
        return thread
    }

    func put(isUrgent: Bool = false, _ task: @escaping Task) {
        state.withLock { state in
            if isUrgent { state.urgent.append(task) } else { state.others.append(task) }
        }
        changed.signal(waking: 1)
    }

    /// Ends the thread once it has done what was put in.
    func close() {
        state.withLock { $0.isClosed = true }
        changed.signal()
    }

    private func run() {
        while true {
            let seen = changed.changes
            let (task, isClosed) = state.withLock { ($0.urgent.next() ?? $0.others.next(), $0.isClosed) }
            if let task {
                task()
            } else if isClosed {
                return
            } else {
                changed.wait(while: seen, until: .never)
            }
        }
    }
}
