internal import Synchronization
public import SystemPackage
internal import UserfaultFD
public import UserfaultPager

/// Serves the memory of tasks that `criu restore --lazy-pages` restores, in place of `criu lazy-pages`.
///
/// It listens at the socket `lazy-pages.socket`, takes a userfaultfd for each task, and loads pages from the images when
/// they are touched. Once all tasks run it loads the rest, and ends. Pages that cannot be loaded are never shown as zeros:
/// the failure policy says what happens to them.
public final class CRIULazyPages: Sendable {
    /// What to serve, and how.
    public struct Configuration: Sendable {
        /// The folder with the images.
        public var images: String
        /// The folder for the socket, which `criu restore` calls its work directory; by default that of the images.
        public var workFolder: String?
        /// Where pages are that the dump left behind; `nil` if the images have all pages.
        public var pageServer: CRIUPageServer?
        /// What happens to pages that cannot be loaded.
        public var failure = FailurePolicy()
        /// How each task's pager works; two threads that load pages are enough for a task and its images.
        public var pager = PagerConfiguration(service: .workers(2))
        /// Is given each task's userfaultfd and the pidfd of its process, before a page of it is served.
        ///
        /// Both are borrowed: who kills the task if this process dies keeps duplicates. If it throws, the task is killed.
        public var keep: (@Sendable (_ task: Int32, _ uffd: FileDescriptor, _ process: FileDescriptor) throws -> Void)?

        /// - Parameter images: The folder with the images.
        public init(images: String) {
            self.images = images
        }
    }

    private let configuration: Configuration
    private let images: CRIUImageFolder
    private let tasksInDump: Set<Int32>
    private let listener: HandoffListener
    private let stopped: EventFD
    private let work: CRIUImageFolder
    private let state = Mutex(State())

    private struct State {
        var tasks: [any CRIUTask] = []
        var isStopped = false
    }

    /// Reads what was dumped, and listens.
    ///
    /// - Throws: ``CRIULazyPagesError/image(_:)``, ``CRIULazyPagesError/kernel(_:)`` if the socket cannot be made.
    public init(_ configuration: Configuration) throws(CRIULazyPagesError) {
        self.configuration = configuration
        do throws(CRIUImageError) {
            images = try CRIUImageFolder(path: configuration.images)
            tasksInDump = Set(try images.tasks())
            work =
                try configuration.workFolder.map { (path) throws(CRIUImageError) in try CRIUImageFolder(path: path) }
                ?? images
        } catch {
            throw .image(error)
        }
        do throws(HandoffError) {
            listener = try HandoffListener(path: work.path(of: "lazy-pages.socket"))
            stopped = try asHandoffError { () throws(UserfaultError) in try EventFD() }
            let socket = FileDescriptor(rawValue: listener.descriptor.rawValue)
            try asHandoffError { () throws(UserfaultError) in try UnixSocket.passSenders(to: socket) }
        } catch {
            throw Self.error(error)
        }
    }

    /// Ends ``run()`` before its time, from any thread: what was not loaded is lost to the tasks.
    public func stop() {
        let tasks = state.withLock { state in
            state.isStopped = true
            return state.tasks
        }
        stopped.signal()
        for task in tasks { task.abandon() }
    }

    /// Serves one restore, on the calling thread, until all pages of all tasks are there or the tasks have ended.
    ///
    /// Once.
    ///
    /// - Throws: What went wrong first. The failure policy was applied to all pages that are not there.
    public func run() throws(CRIULazyPagesError) -> CRIUSummary {
        let start = MonotonicInstant.now
        defer { listener.removePath() }
        let server = try connectToServer()
        defer { server?.stop() }
        do throws(CRIULazyPagesError) {
            try receiveTasks(server)
        } catch {
            // Half restored they are of no use, and what is not registered yet could not be poisoned.
            for task in state.withLock({ $0.tasks }) { task.kill() }
            throw server?.error ?? error
        }
        let tasks = state.withLock { $0.tasks }
        let failure = CRIUFinish(tasks).run()
        guard !state.withLock({ $0.isStopped }) else { throw .stopped }
        if let failure { throw server?.error ?? failure }
        try server?.finish()
        return CRIUSummary(tasks, nanoseconds: MonotonicInstant.now.nanoseconds &- start.nanoseconds)
    }

    private func connectToServer() throws(CRIULazyPagesError) -> CRIUPageServerThread? {
        guard let place = configuration.pageServer else { return nil }
        do throws(CRIUServerError) { return try CRIUPageServerThread(place) } catch { throw .server(error) }
    }

    // MARK: Tasks

    /// Takes in tasks until all are restored.
    private func receiveTasks(_ server: CRIUPageServerThread?) throws(CRIULazyPagesError) {
        let connection = try accept()
        var conversation = CRIUConversation(limit: tasksInDump.count)
        var descriptors = ReceivedDescriptors.none
        while !conversation.isRestored {
            var message = try receive(from: connection)
            guard !message.payload.isEmpty else { throw .restoreFailed }
            let sender = message.takeSender()
            let payload = message.payload
            descriptors.append(message.takeDescriptors(), limit: 2)
            for byte in payload {
                let event: CRIUConversation.Event?
                do throws(CRIUConversation.Violation) {
                    event = try conversation.take(byte, descriptors: descriptors.count)
                } catch {
                    throw .malformed("\(error)")
                }
                switch event {
                case .task(let task): try begin(task, &descriptors, sender, server)
                case .taskWithoutMemory(let task): try check(task)
                case .restored, nil: break
                }
            }
        }
    }

    /// - Throws: ``CRIULazyPagesError/stopped``, as the function that receives.
    private func accept() throws(CRIULazyPagesError) -> OwnedDescriptor {
        try asLazyPagesError { () throws(UserfaultError) in
            let ready = try poll(listener.descriptor.rawValue, stopped.descriptor.rawValue, until: .never)
            guard ready.second == 0 else { return nil }
            let connection = try UnixSocket.accept(from: listener.descriptor)
            // One restore is served: another one finds nobody, rather than wait for ever.
            listener.removePath()
            return connection
        }
    }

    private func receive(from connection: borrowing OwnedDescriptor) throws(CRIULazyPagesError) -> ReceivedMessage {
        let number = connection.rawValue
        return try asLazyPagesError { () throws(UserfaultError) in
            let ready = try poll(number, stopped.descriptor.rawValue, until: .never)
            guard ready.second == 0 else { return nil }
            return try DescriptorPassing.receive(upTo: 4096, from: FileDescriptor(rawValue: number))
        }
    }

    private func check(_ task: Int32) throws(CRIULazyPagesError) {
        guard tasksInDump.contains(task) else { throw .unknownTask(task) }
    }

    /// Begins to serve a task.
    private func begin(
        _ task: Int32, _ descriptors: inout ReceivedDescriptors, _ sender: borrowing ProcessHandle?,
        _ server: CRIUPageServerThread?
    ) throws(CRIULazyPagesError) {
        try check(task)
        // Without /proc nobody could say which features it has.
        let uffd = try asLazyPagesError { () throws(UserfaultError) in
            try descriptors.takeUserfaultFD(handlesKernelFaults: true)
        }
        let owner = try owner(of: task, sender)
        let service: any CRIUTask
        do throws(CRIULazyPagesError) {
            try keep(task, uffd, sender)
            service = try serve(task, uffd, owner, server)
        } catch {
            // Nobody serves it, and nobody may show it zeros.
            owner.kill()
            throw error
        }
        let isStopped = state.withLock { state in
            state.tasks.append(service)
            return state.isStopped
        }
        if isStopped { throw .stopped }
    }

    private func keep(
        _ task: Int32, _ uffd: borrowing UserfaultFD, _ sender: borrowing ProcessHandle?
    ) throws(CRIULazyPagesError) {
        guard let keep = configuration.keep, sender != nil else { return }
        let memory = uffd.withUnsafeDescriptor { $0 }
        let process = sender!.withUnsafeDescriptor { $0 }
        do { try keep(task, memory, process) } catch { throw .notKept(task, "\(error)") }
    }

    private func serve(
        _ task: Int32, _ uffd: consuming UserfaultFD, _ owner: Owner, _ server: CRIUPageServerThread?
    ) throws(CRIULazyPagesError) -> any CRIUTask {
        let pages: CRIUPages
        do throws(CRIUImageError) { pages = try images.pages(of: task) } catch { throw .image(error) }
        do throws(PagerError) {
            if let server {
                let source = CRIUServerSource(pages: pages, task: task, server: server.connection)
                return try CRIUTaskService(
                    task, uffd, pages, from: AsynchronousSource(source), owner: owner, configuration.pager,
                    configuration.failure)
            } else {
                let source = CRIUImageSource(pages: pages)
                return try CRIUTaskService(
                    task, uffd, pages, from: source, owner: owner, configuration.pager, configuration.failure)
            }
        } catch {
            throw .task(task, error)
        }
    }

    private func owner(of task: Int32, _ sender: borrowing ProcessHandle?) throws(CRIULazyPagesError) -> Owner {
        guard sender != nil else { throw .taskHasEnded(task) }
        let duplicate = try asLazyPagesError { () throws(UserfaultError) in
            try OwnedDescriptor(duplicating: sender!.withUnsafeDescriptor { $0.rawValue })
        }
        do throws(PagerError) {
            return try Owner.process(pidfd: duplicate.release())
        } catch {
            throw .task(task, error)
        }
    }

    private static func error(_ error: HandoffError) -> CRIULazyPagesError {
        if case .kernel(let error) = error { return .kernel(error) }
        return .malformed("\(error)")
    }
}

/// Calls the kernel; `nil` where it was stopped meanwhile.
private func asLazyPagesError<Result: ~Copyable>(
    _ body: () throws(UserfaultError) -> Result?
) throws(CRIULazyPagesError) -> Result {
    let result: Result?
    do throws(UserfaultError) { result = try body() } catch { throw .kernel(error) }
    guard let result else { throw .stopped }
    return result
}
