internal import Synchronization
internal import UserfaultFD

// Which threads there are. Runs on the threads of callers that make, start and end a runtime, and that add pagers to it.

/// The threads that pagers share, or that one pager has for itself.
final class Runtime: Sendable {
    /// How many threads of which kind.
    struct Plan {
        /// Readers that serve in place.
        var handlers = 0
        /// Whether there is a reader that only hands over.
        var hasReader = false
        /// Loaders that stay; 0 for some that come and go with work.
        var loaders = 0
        /// The most loaders that come and go.
        var visitors = 1
        /// The most pieces of jobs at once: faults must find a loader that is free.
        var pieces = 1
        var waiting = PagerConfiguration.Waiting.adaptive()
        /// Where readers and loaders are kept, in turn.
        var processors: [Int] = []
        /// The most messages that a reader takes of one descriptor at a time.
        var messages = 64
    }

    struct State {
        var members: [any RuntimeMember] = []
        /// Pagers that have gone, and whose users are to be told something.
        var leaving: [any RuntimeMember] = []
        var threads: [NativeThread] = []
        /// Loaders that come and go: those that run, and by their numbers those that were started and not joined.
        var visiting = 0
        var visitors: [Int: NativeThread] = [:]
        /// The numbers of those that do nothing any more but end.
        var leavers: [Int] = []
        var nextVisitor = 0
        /// It ends with its last pager.
        var isLetGo = false
        var isClosed = false
    }

    let plan: Plan
    let handlers: [Reader]
    let reader: Reader?
    let clock: Clock
    /// Signalled when there is work for loaders.
    let work = SharedFutex()
    /// Signalled when there is something to tell, and when it was told.
    let reports = SharedFutex()
    /// The pager whose reports are being delivered.
    let reporting = Atomic<UInt>(0)
    /// The reporter's thread, which does not wait for itself.
    let reporter = Atomic<Int32>(0)
    let isEnding = Atomic<Bool>(false)
    /// Loaders that stay are there.
    let hasLoaders = Atomic<Bool>(false)
    let hasReporter = Atomic<Bool>(false)
    /// Pieces of jobs that are being done.
    private let pieces = Atomic<Int>(0)
    /// With which pager a loader begins to look.
    let rotation = Atomic<Int>(0)
    let state = Mutex(State())
    private let creator = currentProcessID

    init(_ plan: Plan) throws(UserfaultError) {
        var handlers: [Reader] = []
        for _ in 0..<plan.handlers { handlers.append(try Reader()) }
        self.handlers = handlers
        reader = plan.hasReader ? try Reader() : nil
        clock = try Clock()
        self.plan = plan
    }

    /// Whether this is the process that made it: a child of a fork has none of the threads.
    var isOurs: Bool { currentProcessID == creator }

    /// The pagers that there are now.
    var members: [any RuntimeMember] { state.withLock { $0.members } }

    // MARK: Pagers

    func insert(_ member: any RuntimeMember) throws(PagerError) {
        let isOpen = state.withLock { state in
            if !state.isClosed { state.members.append(member) }
            return !state.isClosed
        }
        guard isOpen else { throw .notRunning }
    }

    /// Lets a pager go, and ends with the last one if nobody else holds the runtime.
    ///
    /// - Parameter hasReports: Whether its user is still to be told something.
    func remove(_ member: any RuntimeMember, hasReports: Bool, until deadline: Deadline) {
        let isLast = state.withLock { state in
            state.members.removeAll { $0 === member }
            if hasReports { state.leaving.append(member) }
            guard state.isLetGo, state.members.isEmpty else { return false }
            state.isClosed = true
            return true
        }
        if isLast { end(until: deadline) }
    }

    /// Nobody adds pagers any more: it ends with its last one.
    func letGo(until deadline: Deadline = .never) {
        guard isOurs else { return }
        let isOver = state.withLock { state in
            state.isLetGo = true
            guard state.members.isEmpty else { return false }
            state.isClosed = true
            return true
        }
        if isOver { end(until: deadline) }
    }

    /// Takes no further pagers.
    ///
    /// - Returns: Those that there are.
    func close() -> [any RuntimeMember] {
        state.withLock { state in
            state.isClosed = true
            return state.members
        }
    }

    /// The handler that reads for the fewest pagers.
    var leastHandler: Reader? {
        handlers.min { $0.members.load(ordering: .relaxed) < $1.members.load(ordering: .relaxed) }
    }

    // MARK: Pieces of jobs

    func beginPiece() -> Bool {
        guard pieces.add(1, ordering: .relaxed).newValue > plan.pieces else { return true }
        endPiece()
        return false
    }

    func endPiece() { pieces.subtract(1, ordering: .relaxed) }

    // MARK: Threads

    /// Starts the threads that stay.
    ///
    /// All that they need was allocated before: a thread that allocates while another is inside `fork` waits for it.
    func start() throws(PagerError) {
        for handler in handlers { try start("uffd-handler", handler) }
        if let reader { try start("uffd-reader", reader) }
        for _ in 0..<plan.loaders { try startLoader() }
        hasLoaders.store(plan.loaders > 0, ordering: .releasing)
        let room = Handed(ClockRoom())
        try start("uffd-clock", stackBytes: 256 << 10, isKept: false) { runtime throws(UserfaultError) in
            var room = room.take()
            try runtime.clock.run(with: &room.tools, &room.ready, for: runtime)
        }
    }

    private struct ClockRoom: ~Copyable {
        var tools = ClockTools()
        var ready = ReadyBatch()
    }

    private func start(_ name: String, _ reader: Reader) throws(PagerError) {
        let room = Handed(
            try asPagerError { () throws(UserfaultError) in
                try Handler(
                    plan.waiting == .block ? .poll : plan.waiting, processors: ProcessorSet().count,
                    messages: plan.messages)
            })
        try start(name) { runtime throws(UserfaultError) in
            var handler = room.take()
            handler.bench.mayWait = false
            defer {
                reader.leave()
                runtime.clock.settleDepartures()
            }
            try reader.run(with: &handler, until: runtime.isEnding)
        }
    }

    private func startLoader() throws(PagerError) {
        let room = Handed(try asPagerError { () throws(UserfaultError) in try Workbench() })
        try start("uffd-loader") { runtime throws(UserfaultError) in
            var bench = room.take()
            runtime.load(with: &bench, stays: true)
        }
    }

    /// Sees to it that there is somebody who tells users.
    func needReporter() throws(PagerError) {
        guard !hasReporter.exchange(true, ordering: .acquiringAndReleasing) else { return }
        do throws(PagerError) {
            try start("uffd-reporter", isKept: false) { runtime throws(UserfaultError) in runtime.deliverReports() }
        } catch {
            hasReporter.store(false, ordering: .releasing)
            throw error
        }
    }

    /// Address space for a thread's stack, in bytes: a source runs on it.
    static var stackBytes: Int { 1 << 20 }

    private func start(
        _ name: String, stackBytes: Int = stackBytes, isKept: Bool = true,
        _ body: @escaping @Sendable (Runtime) throws(UserfaultError) -> Void
    ) throws(PagerError) {
        let number = state.withLock { $0.threads.count }
        let isPlaced = isKept && !plan.processors.isEmpty
        let processors = isPlaced ? ProcessorSet(plan.processors[number % plan.processors.count]) : nil
        let thread = try asPagerError { () throws(UserfaultError) in
            try NativeThread("\(name)-\(number)", stackSize: stackBytes, processors: processors) { [self] in
                do throws(UserfaultError) {
                    try body(self)
                } catch {
                    // Nobody may be left behind waiting, nor read zeros.
                    if !isEnding.load(ordering: .acquiring) { for member in members { member.killOwner() } }
                }
            }
        }
        state.withLock { $0.threads.append(thread) }
    }

    /// Sees to it that somebody takes what pagers have to do.
    func needLoaders() throws(PagerError) {
        guard !hasLoaders.load(ordering: .acquiring) else { return }
        let error = state.withLock { state -> PagerError? in
            // Each time: one of them may hang in a source for ever.
            for number in state.leavers { state.visitors.removeValue(forKey: number)?.join() }
            state.leavers = []
            while state.visiting < plan.visitors, !state.isClosed {
                do throws(PagerError) {
                    state.visitors[state.nextVisitor] = try makeVisitor(state.nextVisitor)
                    state.nextVisitor += 1
                    state.visiting += 1
                } catch {
                    // One is enough.
                    return state.visiting == 0 ? error : nil
                }
            }
            return nil
        }
        if let error { throw error }
    }

    private func makeVisitor(_ number: Int) throws(PagerError) -> NativeThread {
        try asPagerError { () throws(UserfaultError) in
            let room = Handed(try Workbench())
            return try NativeThread("uffd-loader", stackSize: Self.stackBytes) { [self] in
                var bench = room.take()
                repeat { load(with: &bench, stays: false) } while !visitorLeaves(number)
            }
        }
    }

    /// - Returns: `false` if there is work again, for which nobody else may have come.
    private func visitorLeaves(_ number: Int) -> Bool {
        state.withLock { state in
            if !isEnding.load(ordering: .acquiring), state.members.contains(where: { $0.queue.hasWork }) {
                return false
            }
            state.visiting -= 1
            state.leavers.append(number)
            return true
        }
    }

    /// Ends the threads.
    ///
    /// Those that have not ended by the deadline are left to themselves: they hang in a source.
    func end(until deadline: Deadline) {
        isEnding.store(true, ordering: .sequentiallyConsistent)
        work.signal()
        reports.signal()
        clock.wake()
        for handler in handlers { handler.wake() }
        reader?.wake()
        let threads = state.withLock { state in
            defer {
                state.threads = []
                state.visitors = [:]
            }
            return state.threads + state.visitors.values
        }
        for thread in threads where !thread.join(until: deadline) { thread.detach() }
    }
}

/// Something that one thread makes and another takes.
final class Handed<Value: ~Copyable>: @unchecked Sendable {
    private var value: Value?

    init(_ value: consuming Value) {
        self.value = consume value
    }

    /// Once.
    func take() -> Value {
        guard let taken = value.take() else { fatalError("taken twice") }
        return taken
    }
}
