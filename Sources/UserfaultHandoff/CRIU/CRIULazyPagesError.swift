public import UserfaultFD
public import UserfaultPager

/// Why tasks could not be restored lazily.
public enum CRIULazyPagesError: Error, Hashable, Sendable {
    /// An image cannot be used.
    case image(CRIUImageError)
    /// `criu restore` broke its protocol; the text says how.
    case malformed(String)
    /// `criu restore` hung up before all tasks were restored: it has failed.
    case restoreFailed
    /// A task came that was not dumped.
    case unknownTask(Int32)
    /// It cannot be said which process a task is, so that it could not be killed.
    case taskHasEnded(Int32)
    /// Nobody keeps what a task needs if this process dies; the text says why.
    case notKept(Int32, String)
    /// Pages of a task could not be brought, and the failure policy was applied to them.
    case task(Int32, PagerError)
    /// The page server failed.
    case server(CRIUServerError)
    /// The kernel refused.
    case kernel(UserfaultError)
    /// The service was stopped before all pages were there.
    case stopped
}

extension CRIULazyPagesError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .image(let error): "\(error)"
        case .malformed(let text): "what criu restore sent is malformed: \(text)"
        case .restoreFailed: "criu restore hung up before all tasks were restored"
        case .unknownTask(let task): "task \(task) is not in the images"
        case .taskHasEnded(let task): "task \(task) ended while it was restored"
        case .notKept(let task, let text): "task \(task) cannot be guarded: \(text)"
        case .task(let task, let error): "task \(task): \(error)"
        case .server(let error): "\(error)"
        case .kernel(let error): "\(error)"
        case .stopped: "stopped before all pages were there"
        }
    }
}
