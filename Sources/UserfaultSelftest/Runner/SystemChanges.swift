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
        do {
            let guardian = try self.guardian ?? Guardian(signals: signals)
            self.guardian = guardian
            return guardian.ask(request) { [tell] process in
                tell("waiting for another uffd-selftest run, process \(process), which uses this host's settings")
            }
        } catch {
            return .failure(.init(reason: "the process that makes system changes cannot be started: \(error)"))
        }
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

    mutating func finish() {
        guardian?.finish()
        guardian = nil
    }
}
