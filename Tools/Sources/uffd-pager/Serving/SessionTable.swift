import Glibc
import Logging
import NIOCore
import Synchronization
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

/// All clients that are served, and what happens when one comes and goes.
final class SessionTable: Sendable {
    struct State {
        var sessions: [Int: Session] = [:]
        /// The processes of clients that are being taken over, served, or let go, by their ids.
        var unsettled: [Int: Int32] = [:]
        /// Wait until there is none.
        var idle: [CheckedContinuation<Void, Never>] = []
        var nextID = 1
        /// How long clients may be loaded that come while the table closes.
        var closing: Duration?
        var failures = 0
        /// Sums of the sessions that have ended, by their machine's name.
        var past: [String: Totals] = [:]
    }

    /// Threads that read files, of which one machine has at most half: so many pages of all machines are read at once.
    private static var loaders: Int { 16 }
    /// Threads that read faults, and serve pages that are in memory: one alone could keep no more than one processor busy with
    /// machines.
    private static var handlers: Int { min(8, System.coreCount) }

    let keepers: Keepers?
    let state = Mutex(State())
    /// Machines that are paused.
    ///
    /// Held while their sessions are paused, so that none stays so when its machine goes on.
    let paused = Mutex<Set<String>>([])
    let logger: Logger
    let limits: SessionLimits
    private let left: AsyncStream<Int>.Continuation
    /// The threads that serve all of them.
    let runtime: PagerRuntime

    /// The id of each session that has ended, or could not begin.
    let departures: AsyncStream<Int>

    /// - Throws: ``Failure`` with ``ExitCode/system``.
    init(limits: SessionLimits, keptBy keepers: Keepers?, logger: Logger) throws {
        do {
            runtime = try PagerRuntime(handlers: Self.handlers, loaders: Self.loaders)
        } catch {
            throw Failure(.system, "no threads: \(error)")
        }
        self.limits = limits
        self.logger = logger
        self.keepers = keepers
        (departures, left) = AsyncStream.makeStream()
    }

    /// Sessions that did not go well to their end; those of a server that has died are one.
    var failures: Int { state.withLock { $0.failures } + (keepers?.hasFailed == true ? 1 : 0) }

    /// A session does not go well to its end.
    func noteFailure() {
        keepers?.noteFailure()
        state.withLock { $0.failures += 1 }
    }

    /// Those that are ending included.
    func sessions(ofMachine name: String) -> [Session] {
        state.withLock { $0.sessions.values.filter { $0.settings.name == name } }.sorted { $0.id < $1.id }
    }

    /// Sums over all sessions that a machine has had.
    func totals(ofMachine name: String) -> Totals {
        var (totals, sessions) = state.withLock { state in
            (state.past[name] ?? Totals(), state.sessions.values.filter { $0.settings.name == name })
        }
        for session in sessions { totals.add(session.pager.statistics) }
        return totals
    }

    /// Forgets the sums of a machine, and that it is paused.
    func forget(machine name: String) {
        _ = state.withLock { $0.past.removeValue(forKey: name) }
        paused.withLock { paused in
            if paused.remove(name) != nil { keepers?.forget(KeptName.paused(name)) }
        }
    }

    func isPaused(machine name: String) -> Bool { paused.withLock { $0.contains(name) } }

    /// Lets nothing change a page of a machine's sessions, those to come included, or goes on.
    ///
    /// - Returns: How many sessions there are.
    /// - Throws: ``KeepError`` if a successor would not know that the machine is paused.
    func setPaused(machine name: String, _ isPaused: Bool) throws -> Int {
        try paused.withLock { paused in
            if isPaused {
                if !paused.contains(name) { try keepers?.keep(KeptName.paused(name)) }
                paused.insert(name)
            } else if paused.remove(name) != nil {
                keepers?.forget(KeptName.paused(name))
            }
            return sessions(ofMachine: name).count { $0.setPaused(isPaused) }
        }
    }

    /// Takes note of machines that a server has paused, which has died.
    func takePauses() {
        for kept in PassedDescriptors.names {
            guard let name = KeptName.paused(in: kept) else { continue }
            for number in PassedDescriptors.take(kept) { Glibc.close(number) }
            paused.withLock { _ = $0.insert(name) }
        }
    }

    // MARK: Going

    /// Ends a session; nothing is left to be served if its owner has ended.
    func end(_ id: Int, _ ending: SessionEnding = .poison, within limit: Duration? = nil) {
        guard let session = state.withLock({ $0.sessions[id] }), session.beginEnding(ending) else { return }
        Task { await finish(session, ending, within: limit) }
    }

    /// A client is gone, or needs nobody any more.
    func settle(_ id: Int) {
        keepers?.forget(KeptName.client(id))
        left.yield(id)
        let idle = state.withLock { state in
            state.unsettled[id] = nil
            guard state.unsettled.isEmpty else { return [] as [CheckedContinuation<Void, Never>] }
            defer { state.idle = [] }
            return state.idle
        }
        for waiter in idle { waiter.resume() }
    }

    /// Ends the sessions of a machine, all at the same time.
    ///
    /// - Returns: How many there were, and what those that were to be loaded have lost.
    func end(ofMachine name: String, _ ending: SessionEnding, within limit: Duration?) async -> EndedSessions {
        await end(ending, within: limit) { $0.settings.name == name }
    }

    /// Takes no more clients, and loads what those that are served have not got yet, so that they go on by themselves.
    func close(within limit: Duration) async {
        state.withLock { $0.closing = limit }
        _ = await end(.load, within: limit) { _ in true }
        await withCheckedContinuation { continuation in
            let isIdle = state.withLock { state in
                if !state.unsettled.isEmpty { state.idle.append(continuation) }
                return state.unsettled.isEmpty
            }
            if isIdle { continuation.resume() }
        }
        left.finish()
        paused.withLock { paused in
            for name in paused { keepers?.forget(KeptName.paused(name)) }
            paused = []
        }
    }

    private func end(
        _ ending: SessionEnding, within limit: Duration?, where isMeant: (Session) -> Bool
    ) async -> EndedSessions {
        let sessions = state.withLock { $0.sessions.values.filter(isMeant) }
        return await withTaskGroup(of: String?.self) { group in
            for session in sessions {
                group.addTask {
                    if session.beginEnding(ending) {
                        await self.finish(session, ending, within: limit)
                    } else {
                        await self.hasten(session, ending, within: limit)
                    }
                    return session.loss(at: ending)
                }
            }
            return await group.reduce(into: EndedSessions(count: sessions.count)) { ended, loss in
                if let loss { ended.losses.append(loss) }
            }
        }
    }

    /// Waits for the end of a session that another has begun, but no longer for its loading than is said now.
    private func hasten(_ session: Session, _ ending: SessionEnding, within limit: Duration?) async {
        if ending == .kill { kill(session) }
        let patience = ending == .load ? limit : .zero
        let stop = Task {
            guard let patience, (try? await Task.sleep(for: patience)) != nil else { return }
            session.stopLoading()
        }
        await session.waitForEnd()
        stop.cancel()
    }

    /// Kills a client because somebody has asked for that.
    private func kill(_ session: Session) {
        guard case .lives = Fate(of: session.owner) else { return }
        session.noteRefusal()
        noteFailure()
        logger.of(session.settings.name, session.id, session.process).error(
            "the client is to be killed, \(Fate.lives)")
    }

    /// Waits until records are written, but no longer than that.
    func flush(_ records: [WorkingSetRecord], within limit: Duration) async {
        await withTaskGroup(of: Void.self) { group in
            for record in records {
                group.addTask { [self] in
                    if await record.flush(within: limit) { return }
                    noteFailure()
                    logger.error("the record is not written in time", metadata: ["file": "\(record.path)"])
                }
            }
        }
    }

    private func finish(_ session: Session, _ ending: SessionEnding, within limit: Duration?) async {
        let logger = logger.of(session.settings.name, session.id, session.process)
        var failed = false
        if ending == .kill { kill(session) }
        let isKilled = session.settings.onFailure == .kill
        let poisoned = session.pager.statistics.pagesPoisoned
        do throws(PagerError) {
            try await session.pager.stop(ending == .load ? .populate : .poison, within: limit)
        } catch .ownerGone {
        } catch {
            logger.error(
                isKilled
                    ? "not all memory could be loaded at the end: the client is lost, \(Fate(of: session.owner))"
                    : "not all memory could be loaded at the end", metadata: ["error": "\(error)"])
            failed = true
        }
        await session.awaitStops()
        if ending == .load {
            let lost = session.pager.statistics.pagesPoisoned - poisoned
            session.noteLoss(pages: lost, isKilled: failed && isKilled)
        }
        if let record = session.settings.record {
            await onOwnThread {
                record.add(session.pager.recordedWorkingSet) { [self] error in
                    noteFailure()
                    logger.error(
                        "the record cannot be written", metadata: ["file": "\(record.path)", "error": "\(error)"])
                }
            }
        }
        let statistics = session.pager.statistics
        if statistics.strayFaults > 0 {
            logger.error(
                isKilled
                    ? "the client is killed: it touched memory outside its regions"
                    : "the client touched memory outside its regions, which is lost to it",
                metadata: ["faults": "\(statistics.strayFaults)"])
        }
        state.withLock { state in
            state.sessions.removeValue(forKey: session.id)
            state.past[session.settings.name, default: Totals()].add(statistics)
        }
        if failed || statistics.failures > 0 || statistics.strayFaults > 0 { noteFailure() }
        session.noteEnd()
        logger.info(
            "ended",
            metadata: [
                "faults": "\(statistics.faults)", "bytes": "\(statistics.bytesFilled)",
                "failures": "\(statistics.failures)", "median_ns": "\(statistics.service.percentile(50))",
                "p99_ns": "\(statistics.service.percentile(99))", "retries": "\(statistics.retries)",
                "unlogged": "\(session.reports.unlogged)",
            ])
        settle(session.id)
    }
}
