internal import Synchronization
internal import UserfaultFD

// How the pieces of jobs are done. Runs on loaders, and on callers' threads where no loader can be had.

extension PagerCore where Source: ~Copyable {
    /// The most pages of one piece, which is one call of the source and one of the kernel: a fault waits no longer for
    /// the processor than that takes.
    private static var piecePages: Int { 64 }

    private var memoryCount: Int { memories.count + children.count }

    // MARK: From outside

    /// Loads every page of regions that was not loaded yet.
    ///
    /// - Returns: How many pages could not be loaded.
    /// - Throws: ``PagerError/timedOut(pagesLeft:)``; ``PagerError/notRunning`` if the pager was stopped meanwhile,
    ///   ``PagerError/ownerGone`` if the process has ended.
    func populate(_ regions: [RegionReference], until deadline: Deadline) throws(PagerError) -> Int {
        let job = queue.submit(.populate(regions), limit: backgroundLimit)
        let isOver = try complete(job, until: deadline)
        guard !allHaveEnded else { throw .ownerGone }
        guard isOver else {
            let left = regions.reduce(0) { $0 + countUnfilled(of: $1) }
            // All is there, and no thread had the time to say so.
            guard left > 0 else { return job.failures }
            throw .timedOut(pagesLeft: left)
        }
        if job.isCancelled { throw .notRunning }
        return job.failures
    }

    /// Loads every page of every region.
    func populateAll(until deadline: Deadline) throws(PagerError) -> Int {
        // Until the job holds them: one that is removed meanwhile is finished.
        try withAllRegions { (regions) throws(PagerError) in try populate(regions, until: deadline) }
    }

    /// Waits for a job that this thread submitted.
    ///
    /// - Returns: `false` if it was not over by the deadline.
    private func complete(_ job: Job, until deadline: Deadline) throws(PagerError) -> Bool {
        defer { job.end() }
        do throws(PagerError) {
            try runtime.needLoaders()
        } catch {
            // This thread can do as well what no other can be made for.
            try work(until: job, or: deadline)
        }
        return job.wait(until: deadline)
    }

    /// Pages whose fate is open.
    func countUnfilled(of region: RegionReference) -> Int {
        var left = 0
        forEachMemory { memory in
            guard !memory.hasEnded else { return }
            left += memory.sharingOrder { _, machine in machine.countUnfilled(of: region) }
        }
        return left
    }

    /// Bytes of all regions whose fate is open.
    func countUnfilledBytes() throws(PagerError) -> Int {
        try withAllRegions { (regions) throws(PagerError) in
            regions.reduce(0) { $0 + countUnfilled(of: $1) * $1.pageSize.bytes }
        }
    }

    // MARK: Pieces

    /// Does one piece of a job.
    func step(_ job: Job, with bench: inout Workbench) {
        switch job.kind {
        case .populate(let regions): populateStep(job, regions, with: &bench)
        case .prefetch(let runs, let region): prefetchStep(job, runs, of: region, with: &bench)
        }
        if job.state.withLock({ state in
            state.running -= 1
            return endOfPass(job, &state)
        }) {
            job.finish()
            // Who works until it is over may sleep where work is waited for.
            queue.wakeLoaders()
        }
    }

    /// An attempt that was left to the queue is over.
    func finishQueued(_ id: Int, failed: Bool, isDirty: Bool = false) {
        guard id != 0, let job = queue.job(id) else { return }
        let isOver = job.state.withLock { state in
            state.queued -= 1
            if failed { state.failures += 1 }
            if isDirty { state.isDirty = true }
            return endOfPass(job, &state)
        }
        if isOver { job.finish() }
        queue.wakeLoaders()
    }

    /// Begins another pass if the last one has left something.
    ///
    /// - Returns: Whether the job is done.
    private func endOfPass(_ job: Job, _ state: inout Job.State) -> Bool {
        guard state.isAtEnd, state.running == 0, state.queued == 0, !state.isOver else { return false }
        guard case .populate(let regions) = job.kind else { return true }
        let now = changeCount
        // What moved during the pass may be where it has been already, unless all is there at this moment.
        guard state.isDirty || state.changes != now && !regions.allSatisfy({ countUnfilled(of: $0) == 0 }) else {
            return true
        }
        let wait: UInt64 = state.isDirty ? 50_000 << UInt64(min(state.passes, 6)) : 0
        state.due = MonotonicInstant.now.nanoseconds &+ wait
        state.passes += state.isDirty ? 1 : 0
        state.cursor = Job.Cursor()
        state.changes = now
        state.isAtEnd = false
        state.isDirty = false
        return false
    }

    /// How often the address spaces have changed: what moved may have gone where a pass has been already.
    ///
    /// Those of children that have ended count as well: a sum that falls may be the same again.
    var changeCount: UInt64 {
        // What was read before is taken in before, children of forks included.
        forEachMemory { memory in memory.sharingOrder { _, _ in } }
        var sum: UInt64 = 0
        for number in 0..<memoryCount { sum &+= memory(number).changeCount }
        return sum
    }

    // MARK: Populate

    private struct Piece {
        let claim: Claim
        let number: Int
        let at: Job.Cursor
    }

    private func populateStep(_ job: Job, _ regions: [RegionReference], with bench: inout Workbench) {
        guard let piece = nextPiece(job, regions, bench.record) else { return }
        let memory = memory(piece.number)
        defer { memory.endUse() }
        let page = piece.claim.region.pageSize.bytes
        guard let claim = confine(piece.claim, of: memory) else {
            bench.record.end()
            return passHole(job, piece, of: memory)
        }
        let first = claim.range.start
        job.limit?.charge(claim.range.count, at: MonotonicInstant.now.nanoseconds)
        var nobody = PendingFault(fault: PageFault(address: first, flags: []), since: 0)
        nobody.job = job.id
        // Before it may be completed.
        if isAsynchronous { job.state.withLock { $0.queued += 1 } }
        let served = fill(claim, for: nobody, of: memory, with: &bench)
        let isDecided = claim.states.map { !$0[0].isDisjoint(with: .decided) } ?? true
        bench.record.end()
        let limit = claim.pages < piece.claim.pages ? claim.pages : 2 * claim.pages
        if case .pending = served {
            // The pages that were given back because they lie in another mapping.
            if claim.pages < piece.claim.pages { rewind(job, piece, to: claim.range.end, limit: limit) }
            return
        }
        if isAsynchronous { job.state.withLock { $0.queued -= 1 } }
        switch served {
        case .done where isDecided:
            rewind(job, piece, to: first, limit: limit)
        case .failed where isDecided:
            job.state.withLock { $0.failures += 1 }
            rewind(job, piece, to: first, limit: limit)
        case .done, .failed:
            // Taken away by the watchdog, or to be looked at anew.
            job.state.withLock { state in
                state.isDirty = true
                if case .failed = served { state.failures += 1 }
            }
            rewind(job, piece, to: first &+ UInt(page), limit: limit)
        case .gone:
            rewind(job, piece, to: first &+ UInt(page), limit: 1)
        case .later(var again):
            again.setDue()
            job.state.withLock { $0.queued += 1 }
            if !postpone(again, of: memory) { finishQueued(job.id, failed: false, isDirty: true) }
            rewind(job, piece, to: first &+ UInt(page), limit: limit)
        case .pending, .left:
            break
        case .ended:
            noteEnd(of: memory)
        }
    }

    /// Takes the next pages in hand whose fate is open, in memory that stays in use.
    private func nextPiece(_ job: Job, _ regions: [RegionReference], _ record: ThreadRecord) -> Piece? {
        job.state.withLock { state in
            if state.changes == nil { state.changes = changeCount }
            while state.cursor.item < regions.count {
                let region = regions[state.cursor.item]
                while state.cursor.memory < memoryCount {
                    let number = state.cursor.memory
                    if let claim = nextClaim(&state, region, number, record) {
                        return Piece(claim: claim, number: number, at: state.cursor)
                    }
                    state.cursor.memory += 1
                    state.cursor.address = 0
                }
                state.cursor = Job.Cursor(item: state.cursor.item + 1)
            }
            state.isAtEnd = true
            return nil
        }
    }

    private func nextClaim(
        _ state: inout Job.State, _ region: RegionReference, _ number: Int, _ record: ThreadRecord
    ) -> Claim? {
        let memory = memory(number)
        guard memory.beginUse() else { return nil }
        guard !memory.hasEnded else {
            memory.endUse()
            return nil
        }
        let most = max(1, min(state.pieceLimit, Self.piecePages, Workbench.stagingBytes >> region.pageShift))
        while true {
            let from = state.cursor.address
            let found = memory.sharingOrder { _, machine in
                let found = machine.claimUnfilled(of: region, from: from, count: most)
                if case .claimed(let claim) = found {
                    record.begin(claim.range.start, region: region.bits, since: MonotonicInstant.now.nanoseconds)
                }
                return found
            }
            switch found {
            case .none:
                memory.endUse()
                return nil
            case .busy(let page):
                state.isDirty = true
                state.cursor.address = page &+ UInt(region.pageSize.bytes)
            case .claimed(let claim):
                state.cursor.address = claim.range.end
                return claim
            }
        }
    }

    /// Has the next piece begin behind a page that is a hole, or another's memory.
    private func passHole(_ job: Job, _ piece: Piece, of memory: ServedMemory) {
        let page = piece.claim.range.part(at: 0, count: piece.claim.region.pageSize.bytes)
        // The second page in a row: holes of one page are not worth the question.
        let isLong = piece.claim.pages == 1
        let end = isLong ? endOfHole(after: page, piece.claim.region, in: memory) : page.end
        guard end > piece.claim.range.end else { return rewind(job, piece, to: end, limit: 1) }
        job.state.withLock { state in
            let there = state.cursor
            guard there.item == piece.at.item, there.memory == piece.at.memory else { return }
            // Unless another thread has gone back to what lies in front of it.
            if there.address > page.start { state.cursor.address = max(there.address, end) }
        }
    }

    /// Has the next piece begin at an address, unless another thread has gone back further.
    private func rewind(_ job: Job, _ piece: Piece, to address: UInt, limit: Int) {
        job.state.withLock { state in
            state.pieceLimit = max(1, limit)
            let there = state.cursor
            if there.item == piece.at.item, there.memory == piece.at.memory {
                state.cursor.address = min(there.address, address)
            } else {
                state.isDirty = true
            }
        }
    }

    // MARK: Prefetch

    private func prefetchStep(
        _ job: Job, _ runs: [Job.Run], of region: RegionReference?, with bench: inout Workbench
    ) {
        let next = job.state.withLock { state -> (run: Job.Run, isLast: Bool)? in
            guard state.cursor.item < runs.count else {
                state.isAtEnd = true
                return nil
            }
            var run = runs[state.cursor.item]
            // Long runs a piece at a time.
            let done = Int(state.cursor.address)
            run.offset += done
            run.count = min(run.count - done, Self.piecePages * PageSize.base.bytes)
            state.cursor.address += UInt(run.count)
            if Int(state.cursor.address) >= runs[state.cursor.item].count {
                state.cursor = Job.Cursor(item: state.cursor.item + 1)
            }
            return (run, state.cursor.item == runs.count)
        }
        guard let run = next?.run else { return }
        for number in 0..<memoryCount {
            let memory = memory(number)
            guard memory.beginUse() else { continue }
            prefetch(run, of: region, in: memory, with: &bench, limit: job.limit)
            memory.endUse()
        }
    }

    private func prefetch(
        _ run: Job.Run, of region: RegionReference?, in memory: ServedMemory, with bench: inout Workbench,
        limit: RateLimit?
    ) {
        let offsets = run.offset..<run.offset + run.count
        var address: UInt? = 0
        while let from = address {
            var end: UInt = 0
            var isLast = false
            let filled = fillUnasked(of: memory, with: &bench) { machine in
                guard let (span, pages) = machine.pages(at: offsets, of: region, from: from) else {
                    address = nil
                    return nil
                }
                guard let claim = machine.claim(at: pages.start, count: pages.count >> span.region.pageShift) else {
                    address = pages.start &+ UInt(span.bytesToData(from: pages.start))
                    return nil
                }
                end = claim.range.end
                address = end
                // Nearly always: then the order need not be taken once more to learn it.
                isLast = machine.pages(at: offsets, of: region, from: end) == nil
                return claim
            }
            guard let filled else { continue }
            limit?.charge(filled.range.count, at: MonotonicInstant.now.nanoseconds)
            address = isLast && filled.next == end ? nil : filled.next
        }
    }
}
