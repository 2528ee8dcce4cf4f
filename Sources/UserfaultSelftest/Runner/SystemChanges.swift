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
    private var guardian: Guardian?
    private var hasLostGuardian = false
    /// What could not be undone.
    private var troubles: [String] = []

    /// - Parameters:
    ///   - areAllowed: False with `--no-system-changes`.
    ///   - signals: A signal descriptor that ends any wait, where signals are not left to end the process.
    ///   - tell: Takes what a person should know while they wait.
    init(areAllowed: Bool, isRoot: Bool, signals: FileDescriptor? = nil, tell: @escaping (String) -> Void) {
        self.areAllowed = areAllowed
        self.isRoot = isRoot
        self.signals = signals
        self.tell = tell
    }

    var processes: Set<Int32> { guardian.map { [$0.pid] } ?? [] }

    mutating func ask(_ request: GuardianRequest) -> Result<String, Guardian.Refusal> {
        guard areAllowed else { return .failure(.init(reason: "system changes are not allowed")) }
        guard isRoot else { return .failure(.init(reason: "needs root, to change the system")) }
        guard !hasLostGuardian else { return .failure(.init(reason: Self.loss)) }
        do {
            let guardian = try self.guardian ?? Guardian(signals: signals)
            self.guardian = guardian
            let answer = guardian.ask(request, waiting: tellOfWait)
            if guardian.isDead { losesGuardian() }
            return answer
        } catch {
            return .failure(.init(reason: "the process that makes system changes cannot be started: \(error)"))
        }
    }

    private static let loss = "the process that makes system changes has died"

    /// Undoes what a guardian has left that was killed; nothing is changed any more.
    private mutating func losesGuardian() {
        tell("\(Self.loss), killed by somebody else; what it had changed is undone")
        hasLostGuardian = true
        troubles += guardian?.undoRemains() ?? []
        guardian = nil
    }

    /// Asks for something that may be there already.
    ///
    /// Where changes are possible the guardian is asked all the same, because only its lock keeps another run from
    /// taking away what is there.
    ///
    /// - Returns: Why it is not there; nil when it is.
    mutating func provide(_ request: GuardianRequest, unless isThere: Bool, need: () -> String) -> String? {
        switch ask(request) {
        case .success: nil
        case .failure(let refusal): isThere ? nil : "\(need()): \(refusal.reason)"
        }
    }

    /// Waits for the lock that keeps runs apart, until a signal comes; returns whether this run holds it.
    func hold(_ lock: RunLock) -> Bool {
        // The guardian has taken it for the whole run.
        guardian != nil || lock.take(unless: signals, waiting: tellOfWait)
    }

    private func tellOfWait(_ holder: String) {
        tell("waiting for another uffd-selftest run, \(holder), which uses this host's settings")
    }

    /// Has everything undone; returns what could not be.
    mutating func finish() -> [String] {
        if let guardian {
            if let failures = guardian.finish() { troubles += failures } else { losesGuardian() }
        }
        guardian = nil
        defer { troubles = [] }
        return troubles
    }
}
