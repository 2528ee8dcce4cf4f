internal import Synchronization
public import SystemPackage
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

    private init(_ handle: Handle, isCurrent: Bool) {
        self.handle = handle
        self.isCurrent = isCurrent
    }

    /// This process.
    public static var currentProcess: Owner { Owner(current(), isCurrent: true) }

    /// One descriptor for all pagers of a process; a child of its fork is another process.
    private static func current() -> Handle {
        let process = currentProcessID
        return known.withLock { known in
            if let known, known.process == process { return known.handle }
            let handle = Handle(try? ProcessHandle.current())
            // Where no descriptor was free, another pager may have more luck.
            if handle.process != nil { known = (process, handle) }
            return handle
        }
    }

    private static let known = Mutex<(process: Int32, handle: Handle)?>(nil)

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

    /// The process at the other end of a connection: the one that connected, listened or made the pair of sockets.
    ///
    /// - Parameter socket: A connected Unix socket; it stays the caller's.
    /// - Throws: ``PagerError/kernel(_:)`` with `ESRCH` or `EINVAL` if the process has ended, with `ENOTCONN`.
    public static func peer(of socket: FileDescriptor) throws(PagerError) -> Owner {
        let process = try asPagerError { () throws(UserfaultError) in try ProcessHandle(peerOf: socket) }
        let owner = Owner(process, isCurrent: false)
        return owner.processID == currentProcessID ? .currentProcess : owner
    }

    /// Waits until the process has ended.
    ///
    /// - Parameter limit: How long; `nil` waits without a limit.
    /// - Returns: Whether it has ended.
    /// - Throws: ``PagerError/configuration(_:)`` for this process, and for one that could not be opened.
    public func waitForEnd(within limit: Duration? = nil) throws(PagerError) -> Bool {
        guard watched >= 0 else { throw .configuration("this process cannot wait for its own end") }
        let deadline = Deadline(after: limit)
        return try asPagerError { () throws(UserfaultError) in try poll(watched, until: deadline) != 0 }
    }

    /// Readable once the process has ended; negative where there is none.
    package var pidfd: Int32 {
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

    /// Ends the process with `SIGKILL`: for memory that can no longer be served.
    ///
    /// Does nothing if the process has ended.
    ///
    /// - Returns: `false` if the process goes on: it is another user's, and this one does not have `CAP_KILL`; or there was no
    ///   descriptor free for it.
    @discardableResult
    public func kill() -> Bool {
        // Needs no descriptor, of which none may have been free.
        if isCurrent { killThisProcess() }
        guard handle.process != nil else { return false }
        do throws(UserfaultError) { try handle.process!.kill() } catch { return error.errno == .noSuchProcess }
        return true
    }
}
