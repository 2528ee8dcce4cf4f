internal import CUserfaultFD

/// The process whose memory a pager serves: watched for its end, and killed where a ``FailurePolicy`` says so.
public struct Owner: Sendable {
    private let handle: Handle

    /// Whether it is this process.
    let isCurrent: Bool

    /// A pidfd, closed with the last copy of its owner.
    private final class Handle: Sendable {
        let pidfd: Int32

        init(pidfd: Int32) {
            self.pidfd = pidfd
        }

        deinit {
            if pidfd >= 0 { _ = cuffd_close(pidfd) }
        }
    }

    private init(pidfd: Int32, isCurrent: Bool) {
        handle = Handle(pidfd: pidfd)
        self.isCurrent = isCurrent
    }

    /// This process.
    public static var currentProcess: Owner {
        Owner(pidfd: cuffd_pidfd_open(cuffd_getpid()), isCurrent: true)
    }

    /// Another process, by its id.
    ///
    /// Ids are used again: prefer ``process(pidfd:)`` where there is a pidfd.
    ///
    /// - Returns: `nil` where there is no such process.
    public static func process(id: Int32) -> Owner? {
        let pidfd = cuffd_pidfd_open(id)
        return pidfd < 0 ? nil : Owner(pidfd: pidfd, isCurrent: false)
    }

    /// Another process, by a pidfd, which the value takes over.
    public static func process(pidfd: Int32) -> Owner {
        precondition(pidfd >= 0, "a descriptor is never negative")
        return Owner(pidfd: pidfd, isCurrent: false)
    }

    /// Readable once the process has ended; negative where there is none.
    var pidfd: Int32 { handle.pidfd }

    /// What to watch for the end of another process; negative for this one, whose end nobody here would see.
    var watched: Int32 { isCurrent ? -1 : handle.pidfd }

    func kill() {
        _ = cuffd_pidfd_send_signal(handle.pidfd, CUFFD_SIGKILL)
    }
}
