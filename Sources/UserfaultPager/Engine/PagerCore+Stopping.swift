internal import Synchronization
internal import UserfaultFD

// What a user's start and stop mean. Runs on the threads of callers.

extension PagerCore: RuntimeMember where Source: ~Copyable {
    /// How long a stopping pager waits for calls of the source that are under way.
    private static var grace: Duration { .seconds(1) }

    var watchedProcess: CInt { owner.watched }

    func start() throws(PagerError) {
        guard isOurs else { throw .otherProcess }
        // A stop meanwhile waits until its threads are there, and ends them.
        let failure = try phase.withLock { (phase) throws(PagerError) -> PagerError? in
            guard phase == .new else { throw .alreadyStarted }
            do throws(PagerError) {
                try startThreads()
                phase = .running
                return nil
            } catch {
                phase = .stopped
                return error
            }
        }
        if let error = failure {
            if !canPoison { _ = try? populateAll(until: .never) }
            shutDown(until: Deadline(after: Self.grace))
            stopped.signal()
            throw error
        }
    }

    func stop(_ ending: Ending, until deadline: Deadline) throws(PagerError) {
        guard isOurs else { throw .otherProcess }
        try check(ending)
        let before = phase.withLock { phase in
            defer { phase = .stopped }
            return phase
        }
        guard before != .stopped else {
            if ending == .poison { queue.endJobs() }
            return try awaitStopped(until: deadline)
        }
        defer { stopped.signal() }
        guard before != .resuming else { return abandon(until: Deadline(after: Self.grace)) }
        isFinishing.store(true, ordering: .sequentiallyConsistent)
        if ending == .populate { resume() }
        if ending == .leaveZeros { leavesZeros.store(true, ordering: .sequentiallyConsistent) }
        var result: PagerError?
        if ending == .populate {
            do throws(PagerError) {
                let failed = try populateAll(until: deadline)
                if failed > 0 { result = .pagesFailed(failed) }
            } catch {
                // Told to poison meanwhile: that is what happens now. Who is gone needs nothing.
                if error != .notRunning, error != .ownerGone { result = error }
            }
        }
        let last = Deadline(after: Self.grace)
        shutDown(until: deadline.isNever || deadline.instant < last.instant ? last : deadline)
        if let result { throw result }
    }

    /// Waits until another thread has stopped the pager.
    private func awaitStopped(until deadline: Deadline) throws(PagerError) {
        let thread = NativeThread.currentID
        // For these the other one waits.
        guard !isOwnThread(thread), runtime.reporter.load(ordering: .relaxed) != thread else { return }
        while stopped.changes == 0 {
            guard !deadline.hasPassed else { throw .timedOut(pagesLeft: pagesLeft) }
            stopped.wait(while: 0, until: deadline)
        }
    }

    private var pagesLeft: Int {
        guard uses.enter() else { return 0 }
        defer { if uses.leave() { close() } }
        let left = try? withAllRegions { (regions) throws(PagerError) in
            regions.reduce(0) { $0 + countUnfilled(of: $1) }
        }
        return left ?? 0
    }
}
