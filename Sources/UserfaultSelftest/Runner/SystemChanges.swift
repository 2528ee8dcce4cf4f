import CSelftestSupport
import Glibc
import SystemPackage

/// The runner's side of changing the host: starts the guardian when the first change is asked for, and asks it.
struct SystemChanges {
    /// Whether this run may change the host at all.
    let areAllowed: Bool
    private let isRoot: Bool
    private let signals: FileDescriptor?
    private let tell: (String) -> Void
    /// What keeps runs apart.
    ///
    /// The guardian takes it for the whole run; a run that has none, for single results.
    private let lock = RunLock()
    private var guardian: Guardian?
    private var hasLostGuardian = false
    /// Whether the guardian has taken the lock, which it keeps.
    private var hasLock = false
    /// When the run's time budget ends.
    private let end: ContinuousClock.Instant?
    private let mostPatience: Duration
    /// What could not be undone.
    private var troubles: [String] = []

    /// - Parameters:
    ///   - areAllowed: False with `--no-system-changes`.
    ///   - signals: A signal descriptor that ends any wait, where signals are not left to end the process.
    ///   - end: When the run's time budget ends, and with it any wait for another run.
    ///   - patience: How long it may wait for another run at most.
    ///   - tell: Takes what a person should know while they wait.
    init(
        areAllowed: Bool, isRoot: Bool, signals: FileDescriptor? = nil, until end: ContinuousClock.Instant? = nil,
        patience: Duration = RunLock.patience, tell: @escaping (String) -> Void
    ) {
        self.areAllowed = areAllowed
        self.isRoot = isRoot
        self.signals = signals
        self.end = end
        mostPatience = patience
        self.tell = tell
    }

    var processes: Set<Int32> { guardian.map { [$0.pid] } ?? [] }

    mutating func ask(_ request: GuardianRequest) -> Result<String, Guardian.Refusal> {
        withGuardian { guardian in guardian.ask(request) { _ in } }
    }

    /// Takes the lock for the whole run, if this run may change anything: nobody else changes then what it finds.
    ///
    /// - Returns: Why nothing is certain, because another run has it.
    mutating func keepOthersAway() -> Lack? {
        guard case .failure(let refusal) = withGuardian({ _ in .success("") }), refusal.isByOtherRun else { return nil }
        return .refused(refusal)
    }

    /// Has something asked of a guardian that has the lock.
    private mutating func withGuardian(
        _ body: (Guardian) -> Result<String, Guardian.Refusal>
    ) -> Result<String, Guardian.Refusal> {
        guard areAllowed else { return .failure(Self.forbidden) }
        guard isRoot else { return .failure(.init(reason: "needs root, to change the system")) }
        guard !hasLostGuardian else { return .failure(.init(reason: Self.loss)) }
        do {
            let guardian = try self.guardian ?? Guardian(lock, signals: signals)
            self.guardian = guardian
            defer { if guardian.isDead { losesGuardian() } }
            if !hasLock {
                let answer = guardian.ask(.lock(milliseconds: Int(patience.inSeconds * 1000)), tell: tell)
                guard case .success = answer else { return answer }
                hasLock = true
            }
            return body(guardian)
        } catch {
            return .failure(.init(reason: "the process that makes system changes cannot be started: \(error)"))
        }
    }

    /// What a change meets with `--no-system-changes`.
    static let forbidden = Guardian.Refusal(reason: "system changes are not allowed", cause: .options)

    private static let loss = "the process that makes system changes has died"

    /// Undoes what a guardian has left that was killed; nothing is changed any more.
    private mutating func losesGuardian() {
        tell("\(Self.loss), killed by somebody else; what it had changed is undone")
        hasLostGuardian = true
        hasLock = false
        troubles += guardian?.undoRemains() ?? []
        guardian = nil
        lock.release()
    }

    /// Asks for something that may be there already.
    ///
    /// Where changes are possible the guardian is asked all the same, because only its lock keeps another run from
    /// taking away what is there; and if that run has the lock, nothing is certain.
    ///
    /// - Returns: Why it is not there; nil when it is.
    mutating func provide(_ request: GuardianRequest, unless isThere: Bool, need: () -> String) -> Lack? {
        switch ask(request) {
        case .success: nil
        case .failure(let refusal) where refusal.isByOtherRun: .refused(refusal)
        case .failure(let refusal): isThere ? nil : .refused(refusal, need())
        }
    }

    /// Waits for the lock that keeps runs apart, until a signal comes; returns why this run does not hold it.
    func holdLock() -> Lack? {
        // The guardian has taken it for the whole run.
        if hasLock { return nil }
        guard let reason = lock.take(within: patience, unless: signals, tell: tell) else { return nil }
        return lock.isThere ? .chance(reason) : .host(reason)
    }

    /// Lets the next run have the lock, unless there is a guardian: it keeps it, or may be about to take it.
    func releaseLock() {
        if guardian == nil { lock.release() }
    }

    /// How long this run may wait for another one.
    private var patience: Duration {
        min(mostPatience, max(.zero, end.map { $0 - ContinuousClock.now } ?? mostPatience))
    }

    /// Has everything undone; returns what could not be.
    mutating func finish() -> [String] {
        if let guardian {
            if let failures = guardian.finish() { troubles += failures } else { losesGuardian() }
        }
        guardian = nil
        hasLock = false
        lock.release()
        defer { troubles = [] }
        return troubles
    }
}
