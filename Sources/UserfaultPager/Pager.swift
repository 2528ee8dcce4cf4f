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
    private let threads = Mutex<State>(.new)

    private enum State {
        case new
        case running([NativeThread])
        case stopped
    }

    /// A pager that is to be started.
    ///
    /// - Parameters:
    ///   - uffd: The userfaultfd: this process' own, or one that another process sent.
    ///   - source: Where pages come from.
    ///   - owner: The process whose memory it is.
    ///   - configuration: How to work.
    /// - Throws: ``PagerError/configuration(_:)`` where the configuration does not suit the descriptor, and
    ///   ``PagerError/kernel(_:)``.
    public init(
        _ uffd: consuming UserfaultFD,
        source: consuming Source,
        owner: Owner = .currentProcess,
        configuration: PagerConfiguration = PagerConfiguration()
    ) throws(PagerError) {
        let features = uffd.enabledFeatures
        let handlesKernelFaults = uffd.handlesKernelFaults
        try configuration.check(features, owner)
        let blocks = configuration.waiting == .block
        try asPagerError { () throws(UserfaultError) in try uffd.setNonBlocking(!blocks) }
        var memories = [try ServedMemory(uffd)]
        while memories.count < configuration.shards {
            let faults: UserfaultFD.OpenOptions.Faults = handlesKernelFaults ? .userAndKernelMode : .userMode
            let further = try asPagerError { () throws(UserfaultError) in
                try UserfaultFD(features: features, options: .init(faults: faults, nonBlocking: !blocks))
            }
            memories.append(try ServedMemory(further))
        }
        var children: [ServedMemory] = []
        if features.contains(.eventFork) {
            for _ in 0..<configuration.maximumChildren { children.append(try ServedMemory()) }
        }
        core = try PagerCore(
            memories: memories, children: children, source: source, owner: owner, configuration: configuration)
    }

    deinit {
        // Fail closed where nobody has stopped it: what was not loaded is poisoned, or loaded where poison is unknown.
        try? stop(core.canPoison ? .poison : .populate)
    }

    /// Registers memory and begins to serve it: from now on whoever touches a page that is not there waits for it.
    ///
    /// Pages that are there already stay as they are. Before ``start()`` nobody serves, and threads wait.
    ///
    /// - Parameters:
    ///   - range: The memory: whole pages, mapped, of one kind.
    ///   - offset: Where the range begins in the source, in bytes.
    ///   - options: How to serve it.
    /// - Throws: ``PagerError/badRange(_:)``; ``PagerError/kernel(_:)`` with `EBUSY` where another userfaultfd has the
    ///   range, `EINVAL` for memory that cannot be registered.
    @discardableResult
    public func add(
        _ range: AddressRange, offset: Int = 0, options: RegionOptions = RegionOptions()
    ) throws(PagerError) -> Region {
        try core.whileOpen { () throws(PagerError) in
            Region(id: try core.add(range, offset: offset, options: options).id, range: range)
        }
    }

    /// Loads every page of a region that was not loaded yet, and waits until all are there.
    ///
    /// The region can be removed then, and the descriptor closed, without anybody noticing.
    ///
    /// - Throws: ``PagerError/pagesFailed(_:)`` where the source failed and the ``FailurePolicy`` was applied.
    public func populate(_ region: Region) throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in try finish(region, .populate) }
    }

    /// Loads every page of every region that was not loaded yet.
    ///
    /// - Throws: As ``populate(_:)``.
    public func populateAll() throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in try finishAll(.populate) }
    }

    /// Ends the service of a region.
    ///
    /// What was not loaded is poisoned or loaded first.
    ///
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/configuration(_:)`` where the kernel cannot poison; as
    ///   ``populate(_:)``, and then the service has ended all the same.
    public func remove(_ region: Region, _ ending: Ending) throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in
            let failed = try core.withRegion(region.id) { (reference) throws(PagerError) -> Int in
                try core.check(ending)
                let failed = try core.finish(reference, ending)
                core.remove(reference)
                return failed
            }
            guard let failed else { throw .noSuchRegion }
            if failed > 0 { throw .pagesFailed(failed) }
        }
    }

    private func finish(_ region: Region, _ ending: Ending) throws(PagerError) {
        let failed = try core.withRegion(region.id) { (reference) throws(PagerError) -> Int in
            try core.finish(reference, ending)
        }
        guard let failed else { throw .noSuchRegion }
        if failed > 0 { throw .pagesFailed(failed) }
    }

    private func finishAll(_ ending: Ending) throws(PagerError) {
        var failed = 0
        for id in core.regionIDs {
            // One that was removed meanwhile is finished.
            failed +=
                try core.withRegion(id) { (reference) throws(PagerError) -> Int in
                    try core.finish(reference, ending)
                } ?? 0
        }
        if failed > 0 { throw .pagesFailed(failed) }
    }

    /// Starts the threads.
    ///
    /// Once. Where that fails the pager is stopped, and what was not loaded is poisoned.
    ///
    /// - Throws: ``PagerError/alreadyStarted``, ``PagerError/noThread(_:)``.
    public func start() throws(PagerError) {
        let error = threads.withLock { state -> PagerError? in
            guard case .new = state else { return .alreadyStarted }
            do throws(PagerError) {
                state = .running(try core.startThreads())
                return nil
            } catch {
                state = .stopped
                return error
            }
        }
        if let error { throw error }
    }

    /// Stops serving: loads or poisons what was not loaded, ends the threads, and closes the descriptors.
    ///
    /// Threads that wait for pages go on first. Waits for calls of the source that are under way. Afterwards the memory
    /// is ordinary memory; pages that were poisoned stay so. A pager that was stopped already stays as it is.
    ///
    /// - Parameter ending: What happens to pages that were not loaded.
    /// - Throws: ``PagerError/configuration(_:)`` where the kernel cannot poison, and then nothing was stopped;
    ///   ``PagerError/pagesFailed(_:)`` where some could not be loaded, and then all is stopped.
    public func stop(_ ending: Ending) throws(PagerError) {
        try core.check(ending)
        let running = threads.withLock { state -> [NativeThread]? in
            defer { state = .stopped }
            switch state {
            case .new: return []
            case .running(let threads): return threads
            case .stopped: return nil
            }
        }
        guard let running else { return }
        defer { core.stopThreads(running) }
        core.beginFinishing()
        try core.whileOpen { () throws(PagerError) in try finishAll(ending) }
    }

    /// Stops serving, without holding up the caller's thread: as the method that blocks.
    public func stop(_ ending: Ending) async throws(PagerError) {
        let result = await withCheckedContinuation { (continuation: CheckedContinuation<PagerError?, Never>) in
            let stopped = Result { () throws(PagerError) in
                try asPagerError { () throws(UserfaultError) in
                    try NativeThread.detached("uffd-stop") { [self] in
                        do throws(PagerError) {
                            try stopBlocking(ending)
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

    private func stopBlocking(_ ending: Ending) throws(PagerError) { try stop(ending) }

    /// Starts a further thread, which ends with the others.
    func addThread(_ name: String, _ body: @escaping @Sendable (PagerCore<Source>) -> Void) throws(PagerError) {
        let error = threads.withLock { state -> PagerError? in
            guard case .running(let running) = state else { return .notRunning }
            do throws(PagerError) {
                let core = core
                let thread = try asPagerError { () throws(UserfaultError) in try NativeThread(name) { body(core) } }
                state = .running(running + [thread])
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
    }

    /// The pages of a region that were written since they were filled or last asked for, by where they begin in it.
    ///
    /// Only for regions that are filled write-protected. Each page is protected anew before it is reported, so that no
    /// write is lost.
    ///
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/kernel(_:)``.
    public func takeWritten(of region: Region) throws(PagerError) -> [Int] {
        try core.whileOpen { () throws(PagerError) in
            let written = try core.withRegion(region.id) { (reference) throws(PagerError) -> [Int] in
                try core.takeWritten(of: reference)
            }
            guard let written else { throw .noSuchRegion }
            return written
        }
    }

    /// What was done so far.
    public var statistics: PagerStatistics { core.statistics }
}

/// Memory that a pager serves, under the name that the pager gave it; it keeps it when the program moves the memory.
public struct Region: Hashable, Sendable {
    let id: Int

    /// Where it was added.
    public let range: AddressRange
}
