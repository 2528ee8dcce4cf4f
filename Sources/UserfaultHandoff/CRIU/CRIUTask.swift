internal import Synchronization
internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// A task that is being restored, whose pages are served.
protocol CRIUTask: AnyObject, Sendable {
    /// Its process id in the dump.
    var id: Int32 { get }
    /// Pages that were left to the daemon.
    var pageCount: Int { get }

    /// Brings what nobody has touched, and ends the service.
    ///
    /// - Throws: What the failure policy was applied to.
    func finish() throws(PagerError)

    /// Ends a service that is not finished; what was not brought is lost to the task, as the policy says.
    func abandon()

    /// Ends the task.
    func kill()

    var statistics: PagerStatistics { get }
}

/// The service of one task from one kind of source.
final class CRIUTaskService<Source: PageSource & ~Copyable>: CRIUTask {
    let id: Int32
    let pageCount: Int
    private let pager: Pager<Source>
    private let owner: Owner
    private let failure: FailurePolicy
    private let isFinished = Atomic<Bool>(false)

    /// Begins to serve: the task may touch its memory already.
    ///
    /// Pages that are in no dump are zeros, as is memory that comes to the task later.
    init(
        _ task: Int32, _ uffd: consuming UserfaultFD, _ pages: CRIUPages, from source: consuming Source, owner: Owner,
        _ configuration: PagerConfiguration, _ failure: FailurePolicy
    ) throws(PagerError) {
        id = task
        pageCount = pages.index.lazyPages
        self.owner = owner
        self.failure = failure
        var configuration = configuration
        configuration.strays = .zeros
        pager = try Pager(uffd, source: source, owner: owner, configuration: configuration)
        let options = RegionOptions(failure: failure, registration: .byOwner)
        for range in pages.mappings {
            try pager.add(range, offset: Int(range.start), options: options)
        }
        try pager.start()
    }

    func finish() throws(PagerError) {
        defer { isFinished.store(true, ordering: .sequentiallyConsistent) }
        // A task that has ended needs no pages, and the pager then tells of no trouble or of its end.
        do throws(PagerError) { try pager.stop(.populate) } catch { guard error == .ownerGone else { throw error } }
        // But it may have ended of a page that was lost.
        let failures = pager.statistics.failures
        if failures > 0 { throw .pagesFailed(Int(failures)) }
    }

    func abandon() {
        guard !isFinished.load(ordering: .sequentiallyConsistent) else { return }
        if failure.ending == .killOwner { return kill() }
        // A kernel that cannot poison refuses: the task must not see zeros.
        do throws(PagerError) { try pager.stop(.poison) } catch { kill() }
    }

    func kill() {
        owner.kill()
        try? pager.stop(.poison)
    }

    var statistics: PagerStatistics { pager.statistics }
}
