internal import Synchronization
public import UserfaultFD

/// Memory whose pages come from a ``PageSource``.
///
/// A pager reads the faults of one userfaultfd, or of several over which it spreads its regions, loads the pages and
/// fills them in, on threads of its own. Every method may be called from any thread, but those that wait
/// for pages or threads not from the source.
///
/// A pager **fails closed**: a page that cannot be loaded is retried, then poisoned, or the process is killed, as the
/// region's ``FailurePolicy`` says. It is never shown as zeros, and neither are pages that were not loaded when the
/// pager stops or is dropped. See <doc:FailureAndStopping>.
public final class Pager<Source: PageSource & ~Copyable>: Sendable {
    let core: PagerCore<Source>

    /// A pager that is to be started.
    ///
    /// - Parameters:
    ///   - uffd: The userfaultfd: this process' own, or one that another process sent.
    ///   - source: Where pages come from.
    ///   - owner: The process whose memory it is. A descriptor of another process' memory needs one. Which process that is, the
    ///     kernel does not tell: a policy kills the one that is named here, and its end is taken for the memory's.
    ///   - runtime: Threads that it shares with other pagers; `nil` for threads of its own.
    ///   - configuration: How to work.
    /// - Throws: ``PagerError/configuration(_:)`` if the configuration or the owner does not suit the descriptor, and
    ///   ``PagerError/kernel(_:)``. The descriptor is closed then: if nobody else has it open, memory that is registered
    ///   with it reads as zeros. Keep a duplicate, or end the owner first, if that would be believed.
    public convenience init(
        _ uffd: consuming UserfaultFD,
        source: consuming Source,
        owner: Owner = .currentProcess,
        runtime: PagerRuntime? = nil,
        configuration: PagerConfiguration = PagerConfiguration()
    ) throws(PagerError) {
        try self.init(
            uffd, source: source, owner: owner, runtime: runtime, configuration: configuration, phase: .new)
    }

    /// - Parameter phase: What it begins with.
    init(
        _ uffd: consuming UserfaultFD, source: consuming Source, owner: Owner, runtime: PagerRuntime?,
        configuration: PagerConfiguration, phase: PagerCore<Source>.Phase
    ) throws(PagerError) {
        let features = uffd.enabledFeatures
        let handlesKernelFaults = uffd.handlesKernelFaults
        try configuration.check(features, owner)
        let isOwn = try asPagerError { () throws(UserfaultError) in try uffd.isOfThisProcess() }
        guard isOwn != false || !owner.isCurrent else {
            throw .configuration("the descriptor is of another process' memory: say of which one, owner")
        }
        guard isOwn != true || owner.isCurrent || owner.processID == currentProcessID else {
            throw .configuration("the descriptor is of this process' memory, whose owner is no other process")
        }
        let followsForks = features.contains(.eventFork)
        // A thread of this process that waits inside `fork` may hold what a source needs.
        let followsOwnForks = followsForks && (owner.isCurrent || owner.processID == currentProcessID)
        let plan: ServicePlan
        let threads: Runtime
        if let runtime {
            plan = try .shared(
                configuration, loaders: runtime.loadersPerPager,
                sourceWaits: source.isSlow && !source.isOftenReady, followsOwnForks: followsOwnForks,
                isInThread: features.contains(.sigbus))
            threads = runtime.runtime
        } else {
            let own: Runtime.Plan
            (plan, own) = ServicePlan.alone(
                configuration, sourceIsSlow: source.isSlow, followsForks: followsForks,
                isInThread: features.contains(.sigbus))
            threads = try asPagerError { () throws(UserfaultError) in try Runtime(own) }
        }
        let blocks = configuration.waiting == .block && runtime == nil
        try asPagerError { () throws(UserfaultError) in try uffd.setNonBlocking(!blocks) }
        var memories = [try ServedMemory(uffd)]
        while memories.count < configuration.shards {
            let faults: UserfaultFD.OpenOptions.Faults = handlesKernelFaults ? .userAndKernelMode : .userMode
            let further = try asPagerError { () throws(UserfaultError) in
                try UserfaultFD(features: features, options: .init(faults: faults, nonBlocking: !blocks))
            }
            memories.append(try ServedMemory(further))
        }
        for memory in memories { memory.waitsInRead = blocks }
        var children: [ServedMemory] = []
        if followsForks {
            // Those that have ended keep their places until the last thread that serves them is done.
            let spare = min(plan.loaderLimit, threads.plan.loaders) + 4
            let places = configuration.maximumChildren * configuration.shards + spare
            for _ in 0..<places { children.append(try ServedMemory()) }
        }
        core = try PagerCore(
            memories: memories, children: children, source: source, owner: owner, configuration: configuration,
            runtime: threads, ownsRuntime: runtime == nil, plan: plan, phase: phase)
        do throws(PagerError) {
            try threads.insert(core)
        } catch {
            core.detachState()
            throw error
        }
        if runtime == nil { threads.letGo() }
        try core.serveInThreads()
    }

    deinit {
        // A child of a fork has a copy, which is not to undo anything of its parent's.
        guard core.isOurs else { return }
        // Fail closed if nobody has stopped it: what was not loaded is poisoned, or loaded if poison is unknown.
        try? stop(core.canPoison ? .poison : .populate)
    }

    /// Registers memory and begins to serve it: from now on whoever touches a page that is not there waits for it.
    ///
    /// With ``RegionOptions/Registration/byOwner`` the process whose memory it is registers it, before or later. Threads
    /// that have faulted in the range already, and wait by ``StrayPolicy/wait``, are served. Pages that are there already
    /// stay as they are. Before ``start()`` nobody serves, and threads wait, unless they serve themselves.
    ///
    /// - Parameters:
    ///   - range: The memory: whole pages, mapped, of one kind.
    ///   - offset: Where the range begins in the source, in bytes.
    ///   - options: How to serve it.
    /// - Throws: ``PagerError/badRange(_:)``, ``PagerError/badOffset(_:)``, ``PagerError/badPageSize(_:)``,
    ///   ``PagerError/configuration(_:)`` for other options; ``PagerError/kernel(_:)`` with `EBUSY` where another
    ///   userfaultfd has the range, `EINVAL` for memory that cannot be registered.
    @discardableResult
    public func add(
        _ range: AddressRange, offset: Int = 0, options: RegionOptions = RegionOptions()
    ) throws(PagerError) -> Region {
        try core.whileOpen { () throws(PagerError) in
            Region(id: try core.add(range, offset: offset, options: options).id, range: range, pager: core.number)
        }
    }

    /// Loads every page of a region that was not loaded yet, and waits until all are there.
    ///
    /// The region can be removed then, and the descriptor closed, without anybody noticing. Faults go first. A source that
    /// hangs in every worker holds it up, with ``PagerConfiguration/sourceTimeout`` as well: give a limit.
    ///
    /// - Parameters:
    ///   - region: What to load.
    ///   - limit: How long to wait; `nil` waits without a limit.
    /// - Throws: ``PagerError/pagesFailed(_:)`` if the source failed and the ``FailurePolicy`` was applied, or if it said that
    ///   pages are lost (``PageReply/poison``); ``PagerError/timedOut(pagesLeft:)`` at the limit, with what was not loaded;
    ///   ``PagerError/notRunning`` if the pager was stopped meanwhile, ``PagerError/ownerGone``.
    public func populate(_ region: Region, within limit: Duration? = nil) throws(PagerError) {
        let deadline = Deadline(after: limit)
        try core.whileOpen { () throws(PagerError) in
            let failed = try core.withRegion(region) { (reference) throws(PagerError) -> Int in
                try core.populate([reference], until: deadline)
            }
            guard let failed else { throw .noSuchRegion }
            if failed > 0 { throw .pagesFailed(failed) }
        }
    }

    /// Loads every page of every region that was not loaded yet.
    ///
    /// - Throws: As ``populate(_:within:)``.
    public func populateAll(within limit: Duration? = nil) throws(PagerError) {
        let deadline = Deadline(after: limit)
        try core.whileOpen { () throws(PagerError) in
            let failed = try core.populateAll(until: deadline)
            if failed > 0 { throw .pagesFailed(failed) }
        }
    }

    /// Ends the service of a region.
    ///
    /// What was not loaded is loaded, poisoned or left as zeros first. Calls of the source that are under way are waited for,
    /// but no longer than a second: what they answer afterwards changes nothing.
    ///
    /// - Parameters:
    ///   - region: The region.
    ///   - ending: What happens to pages that were not loaded.
    ///   - limit: How long to load; `nil` loads without a limit. What was not loaded by then is poisoned, which takes its
    ///     own time, see ``Ending/poison``.
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/configuration(_:)`` where the kernel cannot poison; as
    ///   ``populate(_:within:)``, and then the service has ended all the same, unless the kernel cannot poison, or the
    ///   program changes its memory without end: ``PagerError/timedOut(pagesLeft:)``, and what is left of the region is served
    ///   still. Its parts in shards and in children of forks end one after the other.
    public func remove(_ region: Region, _ ending: Ending, within limit: Duration? = nil) throws(PagerError) {
        let deadline = Deadline(after: limit)
        try core.whileOpen { () throws(PagerError) in
            let error = try core.withRegion(region) { (reference) throws(PagerError) -> PagerError? in
                try core.check(ending)
                var result: PagerError?
                if ending == .populate {
                    do throws(PagerError) {
                        let failed = try core.populate([reference], until: deadline)
                        if failed > 0 { result = .pagesFailed(failed) }
                    } catch {
                        guard core.canPoison, error != .notRunning else { throw error }
                        result = error
                    }
                }
                let grace = Deadline(after: .seconds(1))
                let soon = deadline.instant < grace.instant ? deadline : grace
                if ending == .leaveZeros {
                    core.awaitWork(reference, until: soon)
                } else {
                    core.poisonTheUntouched(reference, until: soon)
                }
                let last = limit == nil ? Deadline(after: .seconds(30)) : grace
                guard core.remove(reference, leavingZeros: ending == .leaveZeros, until: last) else {
                    throw .timedOut(pagesLeft: core.countUnfilled(of: reference))
                }
                return result
            }
            guard let error else { throw .noSuchRegion }
            if let error { throw error }
        }
    }

    /// Starts the threads.
    ///
    /// Once. If that fails the pager is stopped, and what was not loaded is poisoned.
    ///
    /// - Throws: ``PagerError/alreadyStarted`` if it was started or stopped before, ``PagerError/notRunning`` if it is stopped
    ///   meanwhile, ``PagerError/noThread(_:)``, ``PagerError/kernel(_:)`` with what a thread could not have.
    public func start() throws(PagerError) {
        try core.start()
    }

    /// Stops serving: loads or poisons what was not loaded, or leaves it as zeros, ends the threads, and closes the descriptors.
    ///
    /// Faults, forks and changes of the memory are served until all is loaded. Threads that wait for pages go on first.
    /// Afterwards the memory is ordinary memory; pages that were poisoned stay so. A pager that was stopped already stays
    /// as it is, but one that is still loading ends at once if it is told to poison. A second call returns when the first
    /// has ended, unless it comes from a source or a report of this pager.
    ///
    /// A source that hangs is not waited for: at the limit its call is left to itself, and its answer changes nothing, but
    /// not before a second has passed since loading ended. Its thread, and the descriptors, go when it returns.
    ///
    /// - Parameters:
    ///   - ending: What happens to pages that were not loaded.
    ///   - limit: How long to load; `nil` loads without a limit. What was not loaded by then is poisoned, which takes its
    ///     own time, see ``Ending/poison``.
    /// - Throws: ``PagerError/configuration(_:)`` if the kernel cannot poison, and then nothing was stopped;
    ///   ``PagerError/pagesFailed(_:)`` if some could not be loaded, ``PagerError/timedOut(pagesLeft:)`` if some were
    ///   not loaded in time, and then all is stopped.
    public func stop(_ ending: Ending, within limit: Duration? = nil) throws(PagerError) {
        try core.stop(ending, until: Deadline(after: limit))
    }

    /// Stops serving, without holding up the caller's thread: as the method that blocks.
    public func stop(_ ending: Ending, within limit: Duration? = nil) async throws(PagerError) {
        let result = await withCheckedContinuation { (continuation: CheckedContinuation<PagerError?, Never>) in
            let stopped = Result { () throws(PagerError) in
                try asPagerError { () throws(UserfaultError) in
                    try NativeThread.detached("uffd-stop") { [self] in
                        do throws(PagerError) {
                            try stopBlocking(ending, limit)
                            continuation.resume(returning: nil)
                        } catch {
                            continuation.resume(returning: error)
                        }
                    }
                }
            }
            if case .failure(let error) = stopped { continuation.resume(returning: error) }
        }
        if let result { throw result }
    }

    private func stopBlocking(_ ending: Ending, _ limit: Duration?) throws(PagerError) {
        try stop(ending, within: limit)
    }

    /// The pages of a region that were written since they were filled or last asked for, by where they begin in it.
    ///
    /// Only for regions that are filled write-protected. With `UserfaultFD.Features.eventRemove`, pages that the program dropped
    /// are among them: they are zeros now. Pages that were there before the region was added count from
    /// then on. Each page is protected again before it is reported, so that no write is lost; faults are served
    /// meanwhile. With `UserfaultFD.Features.writeProtectAsync` the kernel is asked, by `PAGEMAP_SCAN`.
    ///
    /// In the faulting thread, a page that was dropped without an event and then read is reported as well: the signal does not
    /// tell a read of what is gone from a write of what is protected.
    ///
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/kernel(_:)``.
    public func takeWritten(of region: Region) throws(PagerError) -> [Int] {
        try core.whileOpen { () throws(PagerError) in
            let written = try core.withRegion(region) { (reference) throws(PagerError) -> [Int] in
                try core.takeWritten(of: reference)
            }
            guard let written else { throw .noSuchRegion }
            return written
        }
    }

    /// As ``takeWritten(of:)``: ranges of bytes in the region, in order.
    ///
    /// - Throws: As ``takeWritten(of:)``.
    public func takeWrittenRanges(of region: Region) throws(PagerError) -> [Range<Int>] {
        guard core.isOurs else { throw .otherProcess }
        guard let size = core.entry(of: region)?.options.pageSize.bytes else {
            throw .noSuchRegion
        }
        var ranges: [Range<Int>] = []
        for offset in try takeWritten(of: region) {
            if let last = ranges.last, last.upperBound == offset {
                ranges[ranges.count - 1] = last.lowerBound..<offset + size
            } else {
                ranges.append(offset..<offset + size)
            }
        }
        return ranges
    }

    var isRunning: Bool { core.phase.withLock { $0 == .running } }
}

/// Memory that a pager serves, under the name that the pager gave it; it keeps it when the program moves the memory.
public struct Region: Hashable, Sendable {
    /// Counts the regions of a pager, from 1 on.
    public let id: Int

    /// Where it was added.
    public let range: AddressRange

    /// Whose it is.
    let pager: UInt64
}
