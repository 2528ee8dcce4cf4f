import CPagerSupport
import Glibc
import UserfaultHandoff
import UserfaultPager

/// What becomes of a client that is to be killed, as the log says it.
enum Fate: CustomStringConvertible {
    case killed
    /// This process may not: it is another user's. Or it cannot: it is not in its PID namespace.
    case lives

    init(wasKilled: Bool) { self = wasKilled ? .killed : .lives }

    /// Kills a process.
    init(of owner: Owner) { self.init(wasKilled: owner.kill()) }

    var description: String {
        switch self {
        case .killed: "and is killed"
        case .lives:
            "and cannot be killed, since it is another user's (CAP_KILL) or in another PID namespace: end it yourself"
        }
    }
}

/// Whether this process may kill others.
enum MayKill {
    /// - Parameter pidfd: Of a process; one that has ended needs nobody.
    static func process(_ pidfd: Int32) -> Bool { signal(pidfd, 0) != .lives }

    /// Kills a process.
    ///
    /// - Returns: `nil` for one that has ended.
    static func killing(_ pidfd: Int32) -> Fate? { signal(pidfd, SIGKILL) }

    private static func signal(_ pidfd: Int32, _ signal: Int32) -> Fate? {
        switch cps_signal_process(pidfd, signal) {
        case 0: .killed
        case -ESRCH: nil
        // EPERM, and EINVAL for a process of a PID namespace that cannot be seen from here.
        default: .lives
        }
    }
}

/// Duplicates of a client's userfaultfd and of a pidfd of its process, closed with the last user.
///
/// As long as one is there, nobody reads zeros: a client that is not served is killed first.
final class ClientDescriptors: Sendable {
    let userfaultfd: Int32
    let process: Int32

    init(of memory: borrowing HandedMemory) throws(HandoffError) {
        (userfaultfd, process) = try memory.duplicateDescriptors()
    }

    deinit {
        close(userfaultfd)
        close(process)
    }
}
