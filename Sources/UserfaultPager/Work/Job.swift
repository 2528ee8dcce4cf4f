internal import Synchronization
internal import UserfaultFD

/// Work of many pages for which no thread waits: threads that have nothing better to do take it a piece at a time.
///
/// Any thread may ask it; none waits inside it but those that wait for its end.
final class Job: Sendable {
    /// What goes first when there is nothing more urgent.
    enum Priority: Int, CaseIterable {
        case prefetch
        case populate
    }

    /// Pages of a source that follow each other, in bytes.
    struct Run: Hashable {
        var offset: Int
        var count: Int
    }

    enum Kind {
        /// Every page of these regions that was neither filled nor poisoned nor removed.
        case populate([RegionReference])
        /// These pages, as far as nobody has touched them: of one region, or of every one that has them.
        case prefetch([Run], of: RegionReference?)

        /// Those that it names, whose records stay as long as it does.
        var regions: [RegionReference] {
            switch self {
            case .populate(let regions): regions
            case .prefetch(_, let region): region.map { [$0] } ?? []
            }
        }
    }

    /// Where the next piece is looked for.
    struct Cursor: Hashable {
        var item = 0
        var memory = 0
        var address: UInt = 0
    }

    struct State {
        var cursor = Cursor()
        /// The most pages of the next piece: fewer where mappings are small.
        var pieceLimit = Int.max
        /// Threads that have a piece.
        var running = 0
        /// Pages that wait in the queue for another attempt.
        var queued = 0
        /// Something was left behind: it needs another pass.
        var isDirty = false
        /// Everything was looked at; what is under way decides whether there is another pass.
        var isAtEnd = false
        /// The changes of all address spaces when the pass began.
        var changes: UInt64?
        var passes = 0
        /// Not before this moment.
        var due: UInt64 = 0
        /// Pages that were lost.
        var failures = 0
        var isOver = false
        /// It ended before it was done.
        var isCancelled = false
    }

    let id: Int
    let kind: Kind
    let priority: Priority
    /// How fast it may go.
    let limit: RateLimit?
    let state = Mutex(State())
    private let ended = FutexWord()

    init(id: Int, _ kind: Kind, limit: RateLimit? = nil) {
        self.id = id
        self.kind = kind
        self.limit = limit
        switch kind {
        case .populate: priority = .populate
        case .prefetch: priority = .prefetch
        }
        for region in kind.regions { region.countReferences(1) }
    }

    deinit {
        for region in kind.regions { region.countReferences(-1) }
    }

    var isOver: Bool { state.withLock { $0.isOver } }

    var failures: Int { state.withLock { $0.failures } }

    var isCancelled: Bool { state.withLock { $0.isCancelled } }

    /// It is done.
    func finish() {
        state.withLock { $0.isOver = true }
        ended.signal()
    }

    /// Ends it before it is done, if it is not.
    func end() {
        state.withLock { state in
            if !state.isOver { state.isCancelled = true }
            state.isOver = true
        }
        ended.signal()
    }

    /// - Returns: `false` if it has not ended by the deadline.
    func wait(until deadline: Deadline) -> Bool {
        while true {
            let seen = ended.changes
            if isOver { return true }
            if deadline.hasPassed { return false }
            ended.wait(while: seen, until: deadline)
        }
    }

    /// Takes part in it, if there may be a piece to take.
    ///
    /// - Parameter next: Lowered to when there may be one.
    func join(at now: UInt64, next: inout UInt64) -> Bool {
        state.withLock { state in
            guard !state.isOver, !state.isAtEnd else { return false }
            guard state.due <= now else {
                next = min(next, state.due)
                return false
            }
            guard limit?.isOpen(at: now, next: &next) ?? true else { return false }
            state.running += 1
            return true
        }
    }
}
