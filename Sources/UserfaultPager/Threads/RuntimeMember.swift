internal import UserfaultFD

// Which thread calls what is said at each requirement.

/// What the threads of a runtime ask of a pager.
protocol RuntimeMember: AnyObject, Sendable {
    /// Pages to load for which there is no thread of the pager's own.
    var queue: WorkQueue { get }

    /// What the clock watches for the end of the process whose memory it is; negative for none.
    var watchedProcess: CInt { get }

    /// Reads some messages of a descriptor, and serves them or puts them into the queue. Runs on a ``Reader``.
    ///
    /// Where it does not serve, it takes no memory from the heap.
    func read(_ memory: ServedMemory, _ readiness: PollSet.Readiness, with handler: inout Handler)

    /// Does once all that reading may come to. Runs on the thread that starts the pager, and on a ``Reader``.
    func rehearse(with handler: inout Handler)

    /// Serves faults of the queue for a short time. Runs on loaders.
    ///
    /// - Parameter next: Lowered to when there is something to do, if it is not now.
    /// - Returns: Whether there was anything to do.
    func serveFaults(with bench: inout Workbench, next: inout UInt64) -> Bool

    /// Does one piece of a job. Runs on loaders.
    ///
    /// - Returns: Whether there was anything to do.
    func serveJob(_ priority: Job.Priority, with bench: inout Workbench, next: inout UInt64) -> Bool

    /// Looks after what waits. Runs on the clock.
    ///
    /// - Returns: When to look again.
    func look(with tools: inout ClockTools) -> UInt64

    /// The process whose memory it is has ended. Runs on the clock.
    func noteOwnerEnd()

    /// No reader comes back to its descriptors. Runs on the thread that stops the pager, or on the clock.
    func readerHasLeft()

    /// Tells the user what there is to tell. Runs on the reporter.
    func deliverReports()

    /// Ends the process whose memory it is: nobody can serve it any more.
    @discardableResult
    func killOwner() -> Bool

    /// Stops the pager as its user would. Runs on the thread that stops a runtime.
    func stop(_ ending: Ending, until deadline: Deadline) throws(PagerError)
}
