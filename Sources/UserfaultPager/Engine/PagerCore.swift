internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// What every thread of a pager may use.

/// How many pagers this process has made.
private let pagers = Atomic<UInt64>(0)

/// What a pager's threads share.
///
/// They hold it, and not the pager, so that a pager that is dropped can stop them.
@safe
final class PagerCore<Source: PageSource & ~Copyable>: @unchecked Sendable {
    let configuration: PagerConfiguration
    let owner: Owner
    /// One for each shard.
    let memories: [ServedMemory]
    /// Readable from the moment on at which handlers are to end; only where there are any.
    let stopEvent: EventFD?
    /// It, or -1.
    let stopDescriptor: CInt
    /// Where the children of a fork go; empty unless the descriptor reports forks.
    let children: [ServedMemory]
    /// The threads, which other pagers may use too.
    let runtime: Runtime
    /// No other pager uses them.
    let ownsRuntime: Bool
    /// Which of them reads; `nil` where handlers of the pager's own do.
    let reader: Reader?
    /// Whether the thread that reads also serves.
    let servesInPlace: Bool
    /// What the reader counts with.
    let readerRecord: ThreadRecord
    /// The reader comes to this pager's descriptors.
    let isRead = Atomic<Bool>(false)
    /// Only of the clock.
    let watchdog: Mutex<Watchdog>
    /// The clock is to look after it.
    let isWatched = Atomic<Bool>(false)
    /// The pager's part in its life.
    let phase: Mutex<Phase>
    /// Changes when nothing is left of it: what a second call that stops it waits for.
    let stopped = FutexWord()
    /// Tells it from other pagers of the process.
    let number = pagers.add(1, ordering: .relaxed).newValue
    /// Only of the thread that stops the pager; before it starts, of who has the phase.
    nonisolated(unsafe) var lastReading: LastReading
    let queue: WorkQueue
    /// How fast pages are loaded for which no thread waits.
    let backgroundLimit: RateLimit?
    let reports: ReportRing?
    /// Zeros for whoever fills.
    let zeros: ZeroMemory
    /// The process that made the pager: a child of its fork has a copy with which it can do nothing.
    private let creator = currentProcessID
    let ownThreads = ThreadSet()
    /// How many processors the program may use; a handler may be kept on fewer.
    let processorCount = ProcessorSet().count
    /// The pager is about to stop: neither regions nor children are taken on any more.
    let isFinishing = Atomic<Bool>(false)
    /// The service ends: what was not loaded is lost from now on.
    let isEnding = Atomic<Bool>(false)
    /// Nothing is filled until the end of a pause; looked at in the order.
    let paused = Atomic<Bool>(false)
    /// What is not loaded at the end is left as zeros, see ``Ending/leaveZeros``.
    let leavesZeros = Atomic<Bool>(false)
    /// Memory is being left behind: children of forks are let go.
    let isSealing = Atomic<Bool>(false)
    /// Handlers of the pager's own.
    let handlers = Mutex<[NativeThread]>([])
    /// Where a thread of the pager waits for itself, and since when.
    let deadlock = Mutex<(address: UInt, since: UInt64)?>(nil)
    /// One for each descriptor whose handlers sleep in `read(2)`.
    let sentinels = Mutex<[SentinelBox]>([])
    /// The pages that were waited for, where they are recorded.
    let touches: TouchLog
    /// The faults that were served last, where they are traced.
    let trace: FaultRing
    let isStopping = Atomic<Bool>(false)
    /// The process whose memory it is has ended.
    let ownerIsGone = Atomic<Bool>(false)
    let strays: Mutex<Strays>
    let registry = Mutex(Registry())
    /// Who needs the descriptors open.
    let uses = Uses()
    private let isOpen = Atomic<Bool>(true)
    /// Whether the source completes requests later.
    let isAsynchronous: Bool
    /// Whether it takes requests from a thread that is completing one.
    let isReentrant: Bool
    /// Whether it is asked in the order, see ``PageSource/isInstant``: where no fork waits for that, which holds the heap.
    let answersAtOnce: Bool
    /// Whether threads that must not wait ask it first.
    let isAskedFirst: Bool
    /// Requests that it has not completed.
    let requests = Requests()
    let origin = RequestOrigin()
    /// What threads count with that are not only this pager's.
    let spareRecords = Mutex<[ThreadRecord]>([])
    /// What such a thread works with while it asks for more.
    let spareBench = Mutex<Workbench?>(nil)
    /// Whether threads serve their own faults.
    let isInThread: Bool
    /// What they ask, where they do.
    let faultServer = Mutex<FaultServer?>(nil)
    /// The last field: where one lies that follows it depends on its type, and would be looked up for every fault.
    let source: Source

    /// What changes seldom.
    struct Registry {
        var regions: [Int: RegionEntry] = [:]
        /// Records of regions that were removed, to which a thread may still refer.
        var retired: [RegionReference] = []
        var records: [ThreadRecord] = []
        var nextRegion = 0
        /// With how many regions to look for those that were unmapped.
        var sweep = 16
        /// Threads that have ended, among them those that lend their thread to a call: counted once and for all.
        var ended = PagerStatistics()
    }

    /// What happens to faults of no region.
    struct Strays {
        var policy: StrayPolicy
        /// How often it was set.
        var changes = 0
    }

    enum Phase {
        /// In the place of another, whose state it does not have yet: nothing of that may change.
        case resuming
        case new, running, stopped
    }

    struct RegionEntry {
        let reference: RegionReference
        let parts: [Part]
        let offset: Int
        let options: RegionOptions

        /// What one descriptor has of a region.
        struct Part {
            let memory: Int
            let range: AddressRange
        }
    }

    init(
        memories: [ServedMemory], children: [ServedMemory], source: consuming Source, owner: Owner,
        configuration: PagerConfiguration, runtime: Runtime, ownsRuntime: Bool, plan: ServicePlan, phase: Phase
    ) throws(PagerError) {
        self.phase = Mutex(phase)
        try asPagerError { () throws(UserfaultError) in try UserfaultFD.prepareForHolding() }
        let followsForks = !children.isEmpty
        unsafe lastReading = try asPagerError { () throws(UserfaultError) in try LastReading(followsForks: followsForks)
        }
        let capacity = configuration.workingSetCapacity
        touches = try asPagerError { () throws(UserfaultError) in try TouchLog(capacity: capacity) }
        trace = try asPagerError { () throws(UserfaultError) in
            try FaultRing(capacity: configuration.traceCapacity)
        }
        self.configuration = configuration
        strays = Mutex(Strays(policy: configuration.strays))
        self.owner = owner
        self.memories = memories
        zeros = try asPagerError { () throws(UserfaultError) in try ZeroMemory() }
        self.runtime = runtime
        self.ownsRuntime = ownsRuntime
        queue = try asPagerError { () throws(UserfaultError) in
            try WorkQueue(
                capacity: 4 << 10, loaderLimit: plan.loaderLimit,
                window: source.handling == .asynchronous ? RequestWindow(most: configuration.backgroundRequests) : nil,
                signals: runtime.work)
        }
        reports = configuration.report == nil ? nil : ReportRing(signals: runtime.reports)
        switch plan.reading {
        case .ownHandlers:
            reader = nil
            servesInPlace = true
            let event = try asPagerError { () throws(UserfaultError) in try EventFD() }
            stopDescriptor = event.descriptor.rawValue
            stopEvent = consume event
        case .inPlace:
            reader = runtime.leastHandler
            servesInPlace = true
            stopDescriptor = -1
            stopEvent = nil
        case .handingOver:
            reader = runtime.reader
            servesInPlace = false
            stopDescriptor = -1
            stopEvent = nil
        }
        readerRecord = ThreadRecord()
        watchdog = Mutex(Watchdog(configuration))
        backgroundLimit = configuration.backgroundBytesPerSecond.map { RateLimit(bytesPerSecond: $0) }
        self.children = children
        isAsynchronous = source.handling == .asynchronous
        isReentrant = isAsynchronous && source.isReentrant
        answersAtOnce = source.isInstant && configuration.sourceTimeout == nil && !followsForks
        isAskedFirst = source.isSlow && source.isOftenReady
        isInThread = memories[0].sendsSignals
        self.source = source
        registry.withLock { $0.records.append(readerRecord) }
        let place = UserfaultFD.holdingPlace(of: owner.isCurrent ? nil : owner.processID)
        for (number, memory) in (memories + children).enumerated() {
            memory.number = number
            if number < memories.count { memory.shard = number }
            memory.holdingPlace = place
            unsafe memory.member = self
        }
        if phase == .new { try attachState() }
    }

    deinit {
        // In a child of a fork the threads that may have held locks are gone, and nothing is to be undone.
        guard isOurs else { return }
        close()
        registry.withLock { registry in
            for reference in registry.regions.values.map(\.reference) + registry.retired { unsafe reference.destroy() }
            for record in registry.records { unsafe record.destroy() }
        }
    }

    /// Whether this is the process that made the pager.
    var isOurs: Bool { currentProcessID == creator }

    /// Whether nothing is to be filled: asked in the order.
    @inline(__always)
    var isPaused: Bool { paused.load(ordering: .relaxed) }

    /// Calls with the descriptors open.
    ///
    /// Others may call meanwhile, and the pager may stop: what the call does then changes nothing.
    func whileOpen<Result: ~Copyable>(_ body: () throws(PagerError) -> Result) throws(PagerError) -> Result {
        guard isOurs else { throw .otherProcess }
        guard !isStopping.load(ordering: .sequentiallyConsistent), uses.enter() else {
            let isStopped = phase.withLock { $0 == .stopped }
            throw ownerIsGone.load(ordering: .acquiring) && !isStopped ? .ownerGone : .notRunning
        }
        defer { if uses.leave() { close() } }
        return try body()
    }

    /// Closes the descriptors, which no thread uses any more.
    func close() {
        guard isOpen.exchange(false, ordering: .sequentiallyConsistent) else { return }
        while let left = queue.takeAny() {
            endStray(left.pending, ifSealed: memory(left.memory))
            memory(left.memory).endUse()
        }
        for memory in memories { memory.close() }
        for child in children { child.close() }
        origin.end()
    }

    /// Sends `SIGKILL` to the process whose memory it is.
    ///
    /// - Returns: `false` if this process may not.
    @discardableResult
    func killOwner() -> Bool { owner.kill() }

    /// The record of a new thread.
    func makeRecord(takesRow: Bool = true, readsMessages: Bool = false) -> ThreadRecord {
        let record = ThreadRecord(takesRow: takesRow, readsMessages: readsMessages)
        registry.withLock { $0.records.append(record) }
        return record
    }

    /// A record for a thread that is not only this pager's.
    func borrowRecord() -> ThreadRecord { spareRecords.withLock { $0.popLast() } ?? makeRecord() }

    func giveBack(_ record: ThreadRecord) { spareRecords.withLock { $0.append(record) } }

    /// Says which thread a record is of, on that thread.
    func enter(_ record: ThreadRecord) {
        let task = NativeThread.currentID
        record.nameTask(task)
        ownThreads.insert(task)
    }

    /// Says that the thread of a record does nothing for the pager any more.
    func leave(_ record: ThreadRecord) { ownThreads.remove(record.task) }

    /// Counts what a thread has counted once and for all, and forgets it.
    func retire(_ record: ThreadRecord) {
        registry.withLock { registry in
            registry.records.removeAll { $0 == record }
            record.add(to: &registry.ended)
        }
        unsafe record.destroy()
    }

    /// Whether the end of the pager poisons what was not loaded.
    var poisonsTheRest: Bool { canPoison && !leavesZeros.load(ordering: .sequentiallyConsistent) }

    /// Whether the kernel has `UFFDIO_POISON`.
    var canPoison: Bool { memories[0].canPoison }

    func check(_ ending: Ending) throws(PagerError) {
        guard ending != .poison || canPoison else {
            throw .configuration("this kernel cannot poison pages (Linux 6.6 can): populate them")
        }
    }

    /// Calls for every descriptor that is served, one after the other.
    func forEachMemory<Failure: Error>(_ body: (ServedMemory) throws(Failure) -> Void) throws(Failure) {
        for memory in memories { try body(memory) }
        for child in children where child.beginUse() {
            defer { child.endUse() }
            try body(child)
        }
    }

    /// The descriptor of a number, by which the reading thread and the queue know it.
    func memory(_ number: Int) -> ServedMemory {
        number < memories.count ? memories[number] : children[number - memories.count]
    }

    /// Counts pages that were poisoned by no thread of the engine's.
    func countPoisoned(_ pages: Int) {
        guard pages > 0 else { return }
        registry.withLock { $0.ended.pagesPoisoned += UInt64(pages) }
    }

    var statistics: PagerStatistics {
        registry.withLock { registry in
            var sum = registry.ended
            for record in registry.records { record.add(to: &sum) }
            sum.queued = queue.count
            return sum
        }
    }
}
