internal import Synchronization
internal import UserfaultFD

/// Threads that any number of pagers share.
///
/// A pager that is made without a runtime has threads of its own. Make one runtime for a process that serves many
/// clients: it has a fixed number of threads, however many pagers there are. Pagers have their turns, a few faults at a
/// time, so that one that floods the runtime holds up no other for long.
///
/// ```swift
/// func serveAll(_ clients: [Owner], receive: (Owner) throws -> UserfaultFD) throws -> [Pager<ZeroSource>] {
///     let runtime = try PagerRuntime()
///     return try clients.map { client in
///         try Pager(receive(client), source: ZeroSource(), owner: client, runtime: runtime)
///     }
/// }
/// ```
public final class PagerRuntime: Sendable {
    let runtime: Runtime
    /// The most loaders that work for one pager at once.
    let loadersPerPager: Int

    /// Starts the threads.
    ///
    /// One further thread only reads, for pagers whose pages loaders bring; one looks after time limits and processes
    /// that end; one calls ``PagerConfiguration/report``, as soon as a pager has it.
    ///
    /// - Parameters:
    ///   - handlers: Threads that read faults and serve them in place, for pagers whose sources do not wait. Each pager
    ///     is served by one.
    ///   - loaders: Threads that ask slow sources, and that populate and prefetch. A quarter of them never does the
    ///     latter: faults go first, whichever pager they are of.
    ///   - loadersPerPager: The most loaders that work for one pager at once, or `nil` for half of them. A source that
    ///     hangs holds up no more.
    ///   - waiting: How handlers and the reader wait for the next fault; ``PagerConfiguration/Waiting/block`` is not for
    ///     threads that read several descriptors.
    ///   - processors: Processors that handlers, reader and loaders are kept on, in turn; none for the scheduler's choice.
    /// - Throws: ``PagerError/configuration(_:)``, ``PagerError/noThread(_:)``, ``PagerError/kernel(_:)``.
    public init(
        handlers: Int = 1, loaders: Int = 8, loadersPerPager: Int? = nil,
        waiting: PagerConfiguration.Waiting = .adaptive(), processors: [Int] = []
    ) throws(PagerError) {
        try PagerConfiguration.check(handlers, 1...PagerConfiguration.maximumThreads, "handlers")
        try PagerConfiguration.check(loaders, 1...PagerConfiguration.maximumThreads, "loaders")
        guard loadersPerPager.map({ (1...loaders).contains($0) }) ?? true else {
            throw .configuration("a pager needs at least one of the loaders, and cannot have more than there are")
        }
        guard waiting != .block else {
            throw .configuration("a thread that reads several descriptors cannot sleep in read(2)")
        }
        try PagerConfiguration.check(processors)
        var plan = Runtime.Plan()
        plan.handlers = handlers
        plan.hasReader = true
        plan.loaders = loaders
        plan.pieces = ServicePlan.piecesAtOnce(loaders)
        plan.waiting = waiting
        plan.processors = processors
        plan.messages = 16
        self.loadersPerPager = loadersPerPager ?? max(1, loaders / 2)
        let made = plan
        runtime = try asPagerError { () throws(UserfaultError) in try Runtime(made) }
        do throws(PagerError) {
            try runtime.start()
        } catch {
            runtime.end(until: .never)
            throw error
        }
    }

    deinit {
        // Its pagers go on: the threads end with the last one.
        runtime.letGo(until: Deadline(after: .seconds(1)))
    }

    /// Stops every pager, as `Pager.stop` does, and ends the threads.
    ///
    /// Without a call, the threads end when the runtime was released and its last pager has stopped. A pager that is made
    /// or started afterwards is refused.
    ///
    /// - Parameters:
    ///   - ending: What happens to pages that were not loaded.
    ///   - limit: How long to load all of them; `nil` loads without a limit.
    /// - Throws: ``PagerError/otherProcess``; the first error of a pager: all are stopped all the same, unless the kernel
    ///   cannot poison.
    public func stop(_ ending: Ending, within limit: Duration? = nil) throws(PagerError) {
        guard runtime.isOurs else { throw .otherProcess }
        let deadline = Deadline(after: limit)
        var first: PagerError?
        for member in runtime.close() {
            do throws(PagerError) {
                try member.stop(ending, until: deadline)
            } catch {
                first = first ?? error
            }
        }
        runtime.letGo(until: Deadline(after: .seconds(1)))
        if let first { throw first }
    }
}
