import CPagerSupport
import Glibc
import UserfaultHandoff
import UserfaultPager

/// What becomes of a client that is to be killed, as the log says it.
enum Fate: CustomStringConvertible {
    case killed
    /// It is another user's, and this process may not.
    case lives

    init(wasKilled: Bool) { self = wasKilled ? .killed : .lives }

    /// Kills a process.
    init(of owner: Owner) { self.init(wasKilled: owner.kill()) }

    var description: String {
        switch self {
        case .killed: "and is killed"
        case .lives: "and cannot be killed, since it is another user's and CAP_KILL is missing: end it yourself"
        }
    }
}

/// Whether this process may kill others.
enum MayKill {
    /// - Parameter pidfd: Of a process; one that has ended needs nobody.
    static func process(_ pidfd: Int32) -> Bool { cps_signal_process(pidfd, 0) != -EPERM }
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
