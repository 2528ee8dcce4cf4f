/// How a pager works.
///
/// Of a pager that shares a ``PagerRuntime``, ``waiting``, ``handlers`` and ``processors`` are the runtime's.
public struct PagerConfiguration: Sendable {
    /// How handler threads wait for the next fault.
    public enum Waiting: Hashable, Sendable {
        /// Sleeps in `poll(2)` until there is something: the least processor time.
        case poll

        /// Sleeps in `read(2)` itself, which saves a call for each fault. Only for memory of this process, and not with
        /// event features: a thread that holds back a fault must be able to look for events.
        case block

        /// Never sleeps. For a processor that has nothing else to do.
        case spin

        /// Looks for the next fault for a while before it sleeps in `poll(2)`, as long as that pays: waking a thread
        /// on another processor takes longer than a fault. Whether it pays is found out by trying both, a few waits in
        /// a thousand. Never looks where there is only one processor.
        ///
        /// - Parameter upTo: How long to look at most.
        case adaptive(upTo: Duration = .microseconds(100))
    }

    /// Who asks the source.
    public enum Service: Hashable, Sendable {
        /// ``inThread`` for a descriptor that sends signals, ``workers(_:)`` with 8 of them for slow sources and where the
        /// descriptor reports forks, else ``inline``.
        case automatic

        /// The thread that reads a fault also loads and fills: the fastest for sources that do not wait.
        case inline

        /// One thread reads, and this many, 1 to 10 000, load and fill: as many pages may be on their way. On a
        /// ``PagerRuntime``: at most this many of its loaders.
        case workers(Int)

        /// The thread that faults loads and fills in a handler of `SIGBUS`, from ``Pager/add(_:offset:options:)`` on: no
        /// other thread takes part.
        ///
        /// For memory of this process, a descriptor with `UserfaultFD.Features.sigbus` and without events, and a source
        /// that is safe in a signal handler, see ``PageSource/isSignalSafe``. The kernel's own accesses, such as those of
        /// `read(2)`, answer `EFAULT` where a page is not there: see ``Pager/withPagesPresent(_:_:)`` and
        /// <doc:ServingInTheFaultingThread>.
        case inThread
    }

    /// How handler threads wait for the next fault.
    public var waiting: Waiting

    /// Who asks the source.
    public var service: Service

    /// Threads that read and serve in place, for each descriptor: 1 to 10 000.
    public var handlers: Int

    /// Descriptors over which each region is spread, in parts of equal size.
    ///
    /// 1 to 10 000; more than one only in this process.
    public var shards: Int

    /// Children of forks that are served at the same time; what a further one has not loaded is poisoned in it.
    ///
    /// The thread that reads the fork poisons it, and serves no other pager meanwhile.
    ///
    /// 0 to 10 000, also times ``shards``. Only with `UserfaultFD.Features.eventFork`, and then not 0.
    public var maximumChildren: Int

    /// Processors that handlers and workers are kept on, in turn; none for the scheduler's choice.
    ///
    /// A handler on the processor of the thread whose faults it serves is woken the fastest.
    public var processors: [Int]

    /// How long a source may take for one page, or `nil` for any time.
    ///
    /// A page that takes longer fails. Refused where threads serve their own faults: none could take a page away from them.
    public var sourceTimeout: Duration?

    /// How long a fault may be outstanding before the watchdog reports it.
    public var stuckAfter: Duration

    /// How often the watchdog looks.
    public var watchdogInterval: Duration

    /// First touches to record, see ``Pager/recordedWorkingSet``; 0 for none.
    ///
    /// Each takes 8 bytes. 2³² at most. While touches are recorded, no pages are loaded along with one that is touched: these
    /// would be taken for touched ones, or hide who touches them.
    public var workingSetCapacity: Int

    /// What happens to faults outside of every region.
    ///
    /// See also ``Pager/setStrayPolicy(_:)``.
    public var strays: StrayPolicy

    /// Faults that ``Pager/tracedFaults(after:)`` keeps, 64 bytes each, 2³² at most; 0 for none, which costs nothing.
    public var traceCapacity: Int

    /// How many bytes a second ``Pager/populate(_:within:)``, ``Pager/prefetch(_:offset:count:)`` and
    /// ``Pager/replay(_:)`` load together, or `nil` for as many as they can.
    ///
    /// Pages that a thread waits for are not limited, nor is what is read ahead of them. A `Pager.stop` that
    /// populates is.
    public var backgroundBytesPerSecond: Int?

    /// The most requests that are outstanding for ``Pager/populate(_:within:)``, ``Pager/prefetch(_:offset:count:)`` and
    /// ``Pager/replay(_:)`` together, at a source that completes them later.
    ///
    /// While a thread waits for a page of the source, there are at most four: what is outstanding is in front of the next
    /// fault.
    public var backgroundRequests: Int

    /// Where the pager keeps what a successor needs if its process is killed; `nil` keeps it in the process.
    ///
    /// Only for another process' memory, on one descriptor, without `UserfaultFD.Features.eventFork`: the descriptors of
    /// children are nobody else's. Each change of the address space writes all pieces of all regions anew.
    public var state: PagerState?

    /// Gets what the engine has to report, on a thread of its own.
    ///
    /// `nil` drops it.
    public var report: (@Sendable (PagerReport) -> Void)?

    /// How a pager works; the defaults suit one descriptor and a source that does not wait.
    public init(
        waiting: Waiting = .adaptive(),
        service: Service = .automatic,
        handlers: Int = 1,
        shards: Int = 1,
        maximumChildren: Int = 64,
        processors: [Int] = [],
        sourceTimeout: Duration? = nil,
        stuckAfter: Duration = .seconds(10),
        watchdogInterval: Duration = .milliseconds(250),
        workingSetCapacity: Int = 0,
        strays: StrayPolicy = .poison,
        traceCapacity: Int = 0,
        backgroundBytesPerSecond: Int? = nil,
        backgroundRequests: Int = 64,
        state: PagerState? = nil,
        report: (@Sendable (PagerReport) -> Void)? = nil
    ) {
        self.waiting = waiting
        self.service = service
        self.handlers = handlers
        self.shards = shards
        self.maximumChildren = maximumChildren
        self.processors = processors
        self.sourceTimeout = sourceTimeout
        self.stuckAfter = stuckAfter
        self.watchdogInterval = watchdogInterval
        self.workingSetCapacity = workingSetCapacity
        self.strays = strays
        self.traceCapacity = traceCapacity
        self.backgroundBytesPerSecond = backgroundBytesPerSecond
        self.backgroundRequests = backgroundRequests
        self.state = state
        self.report = report
    }
}
