import ArgumentParser
import Logging
import Synchronization
import UserfaultFD
import UserfaultHandoff
import UserfaultPager
import UserfaultPagerService

/// A pager of whatever source.
protocol SessionPager: Sendable {
    var statistics: PagerStatistics { get }
    var recordedWorkingSet: WorkingSet { get }
    func replay(_ workingSet: WorkingSet) throws(PagerError)
    func countUnfilledBytes() throws(PagerError) -> Int
    func pause() throws(PagerError)
    func resume() throws(PagerError)
    func populateAll(within limit: Duration?) throws(PagerError)
    func stop(_ ending: Ending, within limit: Duration?) async throws(PagerError)
}

extension Pager: SessionPager where Source: ~Copyable {}

/// A client that is being served: a virtual machine, or whatever process handed its memory over.
final class Session: Sendable {
    let id: Int
    /// The process that connected.
    let process: Int32
    let byteCount: Int
    let regionCount: Int
    let settings: MachineSettings
    let owner: Owner
    let pager: any SessionPager
    /// What the pager has to say of the client.
    let reports: ReportLog

    private struct Activity {
        /// Calls that load all memory.
        var populates = 0
        /// How the session ends, once that has begun.
        var ending: SessionEnding?
        /// Calls that poison what an end by loading has not loaded yet.
        var stops: [Task<Void, Never>] = []
        var hasEnded = false
        /// What was not loaded at the end although it was to be.
        var loss: String?
        /// Why the client was not killed although it was to be.
        var refusal: String?
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private let activity = Mutex(Activity())

    init(
        _ id: Int, serving memory: consuming HandedMemory, _ descriptors: ClientDescriptors,
        as settings: MachineSettings, on runtime: PagerRuntime, isPaused: Bool, keptBy keepers: Keepers?,
        logger: Logger,
        _ ended: @escaping @Sendable () -> Void
    ) throws {
        self.id = id
        self.settings = settings
        process = memory.peer.process
        reports = ReportLog(logger, keepers)
        owner = memory.owner
        byteCount = memory.regions.reduce(0) { $0 + $1.range.count }
        regionCount = memory.regions.count
        // From now on a death of this process does not let the client read zeros.
        let files = try keepers?.keep(id, memory, descriptors, as: settings)
        memory.client.endArrival()
        var configuration = Self.configuration(settings, reports, ended)
        configuration.state = files?.state
        pager = try settings.memory.serve(
            memory,
            ServiceTerms(
                runtime: runtime, configuration: configuration,
                options: RegionOptions(failure: settings.policy), patience: settings.patience, isPaused: isPaused,
                files: files, log: reports))
    }

    /// Goes on in place of a server that has died.
    init(
        _ id: Int, resuming memory: consuming KeptMemory, as settings: MachineSettings, on runtime: PagerRuntime,
        isPaused: Bool, process: Int32, keptBy keepers: Keepers?, logger: Logger,
        _ ended: @escaping @Sendable () -> Void
    ) throws {
        self.id = id
        self.settings = settings
        self.process = process
        reports = ReportLog(logger, keepers)
        owner = memory.owner
        let regions = memory.record.content.regions
        byteCount = regions.reduce(0) { $0 + $1.range.count }
        regionCount = regions.count
        pager = try settings.memory.resume(
            memory,
            ServiceTerms(
                runtime: runtime, configuration: Self.configuration(settings, reports, ended),
                options: RegionOptions(), patience: .zero, isPaused: isPaused, files: nil, log: reports))
    }

    private static func configuration(
        _ settings: MachineSettings, _ reports: ReportLog, _ ended: @escaping @Sendable () -> Void
    ) -> PagerConfiguration {
        PagerConfiguration(
            workingSetCapacity: settings.record == nil ? 0 : WorkingSetRecord.capacity,
            strays: settings.onFailure == .kill ? .killOwner : .poison
        ) { report in
            reports.log(report)
            if case .ownerGone = report { ended() }
        }
    }

    /// Loads all memory, without holding up the caller's thread.
    ///
    /// - Returns: Why it could not be loaded, or `nil`; a session that ends meanwhile is no failure.
    func populate(within limit: Duration?) async -> String? {
        activity.withLock { $0.populates += 1 }
        defer { activity.withLock { $0.populates -= 1 } }
        return await onOwnThread { [pager] in
            do throws(PagerError) {
                try pager.populateAll(within: limit)
                return nil
            } catch .notRunning, .ownerGone {
                return nil
            } catch {
                return "\(error)"
            }
        }
    }

    /// Begins the end, which waits until nothing pauses the session any more.
    ///
    /// - Returns: `false` if it has begun already.
    func beginEnding(_ ending: SessionEnding) -> Bool {
        activity.withLock { activity in
            guard activity.ending == nil else { return false }
            activity.ending = ending
            return true
        }
    }

    /// Poisons what an end that has begun has not loaded yet.
    func stopLoading() {
        activity.withLock { activity in
            activity.stops.append(Task { [pager] in try? await pager.stop(.poison, within: nil) })
        }
    }

    /// Waits for calls that stop the loading: one of them may be what has stopped the pager.
    func awaitStops() async {
        for stop in activity.withLock({ $0.stops }) { await stop.value }
    }

    /// Takes note of what an end by loading could not load.
    func noteLoss(pages: UInt64, isKilled: Bool) {
        guard pages > 0 || isKilled else { return }
        let fate = isKilled ? "it is killed" : "touching one is SIGBUS"
        activity.withLock { $0.loss = "\(pages) pages of process \(process) were not loaded: \(fate)" }
    }

    /// Takes note that the client could not be killed.
    func noteRefusal() {
        activity.withLock { $0.refusal = "process \(process) was to be killed, \(Fate.lives)" }
    }

    /// What an end has not done that was asked for, or `nil`: memory that is not loaded, or a client that lives.
    func loss(at ending: SessionEnding) -> String? {
        activity.withLock { activity in
            switch ending {
            case .load: activity.loss
            case .kill: activity.refusal
            case .poison: nil
            }
        }
    }

    /// Says that the end is over.
    func noteEnd() {
        let waiters = activity.withLock { activity in
            activity.hasEnded = true
            return activity.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func waitForEnd() async {
        await withCheckedContinuation { continuation in
            let hasEnded = activity.withLock { activity in
                if !activity.hasEnded { activity.waiters.append(continuation) }
                return activity.hasEnded
            }
            if hasEnded { continuation.resume() }
        }
    }

    var isEnding: Bool { activity.withLock { $0.ending != nil } }

    /// Lets nothing change a page, or goes on.
    ///
    /// - Returns: `false` if the session is ending.
    @discardableResult
    func setPaused(_ isPaused: Bool) -> Bool {
        activity.withLock { activity in
            guard activity.ending == nil else { return false }
            do throws(PagerError) {
                if isPaused { try pager.pause() } else { try pager.resume() }
                return true
            } catch {
                // It was stopped.
                return false
            }
        }
    }

    /// What loads all memory now.
    var loading: Loading? {
        let kind: Loading.Kind? = activity.withLock { activity in
            activity.ending == .load ? .drain : activity.populates > 0 ? .populate : nil
        }
        guard let kind, let left = try? pager.countUnfilledBytes() else { return nil }
        return Loading(kind: kind, bytesLeft: left)
    }
}

/// What happens to memory that was not loaded when a session ends before its client does.
enum SessionEnding: String, Codable, CaseIterable, ExpressibleByArgument, Sendable {
    /// It is loaded, and the client goes on by itself.
    case load
    /// It is poisoned.
    case poison
    /// The client is killed.
    case kill
}

/// All memory of a session is being loaded.
struct Loading: Codable, Sendable {
    enum Kind: String, Codable, Sendable {
        case populate
        /// The session ends with it.
        case drain
    }

    let kind: Kind
    let bytesLeft: Int
}
