internal import SystemPackage
internal import UserfaultFD

/// The process whose memory a pager serves: watched for its end, and killed where a ``FailurePolicy`` says so.
public struct Owner: Sendable {
    private let handle: Handle

    /// Whether it is this process.
    let isCurrent: Bool

    /// A process, closed with the last copy of its owner.
    private final class Handle: Sendable {
        /// `nil` where no descriptor was free for this process.
        let process: ProcessHandle?

        init(_ process: consuming ProcessHandle?) {
            self.process = process
        }
    }

    private init(_ process: consuming ProcessHandle?, isCurrent: Bool) {
        handle = Handle(process)
        self.isCurrent = isCurrent
    }

    /// This process.
    public static var currentProcess: Owner {
        Owner(try? ProcessHandle.current(), isCurrent: true)
    }

    /// Another process, by its id.
    ///
    /// Ids are used again: prefer ``process(pidfd:)`` where there is a pidfd.
    ///
    /// - Returns: `nil` where there is no such process.
    public static func process(id: Int32) -> Owner? {
        guard let process = try? ProcessHandle(id: id) else { return nil }
        return Owner(process, isCurrent: false)
    }

    /// Another process, by a pidfd, which the value takes over.
    ///
    /// - Throws: ``PagerError/kernel(_:)`` with `EBADF` where it is not an open pidfd, which stays the caller's.
    public static func process(pidfd: Int32) throws(PagerError) -> Owner {
        let process = try asPagerError { () throws(UserfaultError) in try ProcessHandle(adopting: pidfd) }
        return Owner(process, isCurrent: false)
    }

    /// Readable once the process has ended; negative where there is none.
    var pidfd: Int32 {
        guard handle.process != nil else { return -1 }
        return handle.process!.withUnsafeDescriptor { $0.rawValue }
    }

    /// The process' id, or `nil` if it has ended or is not known.
    var processID: Int32? {
        guard pidfd >= 0, let text = try? ProcFile.read("/proc/self/fdinfo/\(pidfd)", for: .openProcess),
            let id = ProcFile.value(of: "Pid:", in: text).flatMap({ Int32($0) }), id > 0
        else { return nil }
        return id
    }

    /// What to watch for the end of another process; negative for this one, whose end nobody here would see.
    var watched: Int32 { isCurrent ? -1 : pidfd }

    func kill() {
        guard handle.process != nil else { return }
        try? handle.process!.kill()
    }
}
