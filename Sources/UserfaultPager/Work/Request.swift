internal import Synchronization
internal import UserfaultFD

// Pages that a source completes later. Runs on whatever thread completes them, and on the watchdog.

/// The pager that has made a request.
protocol RequestMaker: AnyObject, Sendable {
    /// Whether the pages are in its hand still.
    func isWanted(_ request: Request) -> Bool

    /// Fills the pages of a request that the calling thread has taken.
    func settle(_ request: Request, _ reply: PageReply?)
}

/// The way from requests to their pager, until that is closed: a source may keep a request for ever, and the pager has the
/// source.
final class RequestOrigin: Sendable {
    private let pager = Mutex<(any RequestMaker)?>(nil)
    private let hasBegun = Atomic<Bool>(false)

    var maker: (any RequestMaker)? { pager.withLock(\.self) }

    /// Before a request is made, by a pager that is open.
    func begin(_ maker: any RequestMaker) {
        guard !hasBegun.load(ordering: .acquiring) else { return }
        pager.withLock { $0 = maker }
        hasBegun.store(true, ordering: .releasing)
    }

    func end() {
        // What goes with it may take locks.
        let last = pager.withLock { $0.take() }
        _ = last
    }
}

/// One request, until it is settled: it keeps region and descriptor in use.
///
/// Not generic, as the pager is: making one should not cost the look-up of its type.
final class Request: RequestedWork {
    private let origin: RequestOrigin
    let claim: Claim
    let memory: ServedMemory
    let pending: PendingFault
    /// When it was made.
    let since: UInt64
    /// A thread waits for it.
    let isDemand: Bool
    private let isOpen = Atomic<Bool>(true)
    /// The source has returned from being handed it.
    let isHandedOver = Atomic<Bool>(false)
    /// Its place among the requests that are outstanding: under their lock.
    fileprivate let place = Atomic<Int>(0)

    init(_ origin: RequestOrigin, _ claim: Claim, _ memory: ServedMemory, _ pending: PendingFault, since: UInt64) {
        isDemand = claim.isAwaited && pending.job == 0
        self.origin = origin
        self.claim = claim
        self.memory = memory
        self.pending = pending
        self.since = since
        claim.region.countReferences(1)
    }

    deinit {
        claim.region.countReferences(-1)
    }

    /// - Returns: Whether the caller is who settles it.
    func take() -> Bool { isOpen.exchange(false, ordering: .acquiringAndReleasing) }

    var isCancelled: Bool {
        guard isOpen.load(ordering: .acquiring), let maker = origin.maker else { return true }
        return !maker.isWanted(self)
    }

    func settle(_ reply: PageReply?) {
        guard take() else { return }
        // Not closed: the request is a use of it until it is finished.
        origin.maker?.settle(self, reply)
    }
}

/// Requests that are outstanding.
struct Requests: ~Copyable, Sendable {
    private let open = Mutex<[Request]>([])

    func insert(_ request: Request) {
        open.withLock { open in
            request.place.store(open.count, ordering: .relaxed)
            open.append(request)
        }
    }

    func remove(_ request: Request) {
        open.withLock { open in
            // The last one takes its place.
            let last = open.removeLast()
            guard last !== request else { return }
            let place = request.place.load(ordering: .relaxed)
            last.place.store(place, ordering: .relaxed)
            open[place] = last
        }
    }

    func contains(_ isWanted: (Request) -> Bool) -> Bool { open.withLock { $0.contains(where: isWanted) } }

    /// Requests that were made before a moment.
    func made(before moment: UInt64) -> [Request] { open.withLock { $0.filter { $0.since < moment } } }
}

extension PagerCore: RequestMaker where Source: ~Copyable {
    func isWanted(_ request: Request) -> Bool {
        guard uses.enter() else { return false }
        defer { if uses.leave() { close() } }
        guard request.memory.beginUse() else { return false }
        defer { request.memory.endUse() }
        return request.memory.sharingOrder { _, machine in machine.isCurrent(request.claim) }
    }

    /// Asks for pages in hand that come later.
    ///
    /// - Parameter now: The moment.
    @inline(never)
    func request(_ claim: Claim, for pending: PendingFault, of memory: ServedMemory, at now: UInt64) -> Served {
        uses.enterAgain()
        guard memory.beginUse() else {
            if uses.leave() { close() }
            return .done
        }
        origin.begin(self)
        let request = Request(origin, claim, memory, pending, since: now)
        requests.insert(request)
        queue.window?.begin(isDemand: request.isDemand)
        source.hand(
            PageRequest(
                request, offset: claim.offset, byteCount: claim.range.count,
                priority: request.isDemand ? .demand : .ahead))
        request.isHandedOver.store(true, ordering: .releasing)
        return .pending
    }

    func settle(_ request: Request, _ reply: PageReply?) {
        let record = borrowRecord()
        var claim = request.claim
        let now = MonotonicInstant.now.nanoseconds
        record.clearTimes()
        record.begin(claim.range.start, region: claim.region.bits, since: request.pending.since)
        record.recordLoad(now &- request.since)
        let served: Served
        // Not `flatMap`, for which the type of what it returns is looked up each time.
        if let reply, let answer = understand(reply, claim, claim.range.count) {
            if case .poison = answer.filling { claim.content = .poison }
            if answer.bytes < claim.range.count {
                leaveBehind(claim.dropFirst(answer.bytes), of: request)
                claim = claim.prefix(pages: answer.bytes >> claim.region.pageShift)
            }
            served = put(
                answer.filling, into: claim, for: request.pending, of: request.memory, by: record, since: now)
        } else {
            // Which of the pages it is that fails, nobody knows: the one that is waited for is judged.
            let first = claim.region.pageSize.bytes
            if claim.pages > 1 { leaveBehind(claim.dropFirst(first), of: request) }
            served = fail(claim.prefix(pages: 1), request.pending, of: request.memory, by: record)
        }
        if trace.isOn { trace(request.pending, claim.region.id, served, by: record) }
        // Pages behind the first may have been given back: in a pause, or because something changed.
        if claim.pages > 1, claim.decidedBytes < claim.range.count {
            // Fewer at once, and single ones in the end: pages that nobody can have are passed over then.
            queue.job(request.pending.job)?.state.withLock { state in
                state.isDirty = true
                state.pieceLimit = min(state.pieceLimit, claim.pages / 2)
            }
        }
        record.end()
        // Not within the source's call that hands it over: it would be called from there again and again.
        let asksForMore = isReentrant && !request.isDemand && request.isHandedOver.load(ordering: .acquiring)
        finish(request, served)
        if asksForMore { askForMore(by: record) }
        giveBack(record)
    }

    /// Gives back pages that a request was about and did not bring: a job that wants them looks for them again.
    private func leaveBehind(_ rest: Claim, of request: Request) {
        giveBack(rest, of: request.memory)
        queue.job(request.pending.job)?.state.withLock { $0.isDirty = true }
    }

    /// Lets go what is outstanding, whose memory is sealed.
    func cancelRequests() {
        for request in requests.made(before: .max) where request.take() {
            giveBack(request.claim, of: request.memory)
            finish(request, .done)
        }
    }

    /// Fails a request that has taken too long.
    func expire(_ request: Request, by record: ThreadRecord) {
        guard request.take() else { return }
        let claim = request.claim
        let first = claim.prefix(pages: 1)
        if claim.pages > 1 { leaveBehind(claim.dropFirst(first.range.count), of: request) }
        var served = Served.failed
        if claim.isAwaited {
            note(.timedOut(address: first.range.start))
            served = give(up: first, claim.region.failure.ending, for: request.pending, of: request.memory, by: record)
        } else {
            giveBack(first, of: request.memory)
        }
        if trace.isOn { trace(request.pending, claim.region.id, served, by: record) }
        finish(request, served)
    }

    private func finish(_ request: Request, _ served: Served) {
        let job = request.pending.job
        switch served {
        case .later(let again):
            var again = again
            again.setDue()
            if !postpone(again, of: request.memory) {
                request.memory.wake(again.fault.page(size: .base))
                finishQueued(job, failed: false, isDirty: true)
            }
        case .failed: finishQueued(job, failed: true)
        case .left: finishQueued(job, failed: false, isDirty: true)
        case .done, .gone, .pending: finishQueued(job, failed: false)
        case .ended:
            noteEnd(of: request.memory)
            finishQueued(job, failed: false)
        }
        requests.remove(request)
        if queue.window?.end(isDemand: request.isDemand) == true { queue.wakeLoaders(1) }
        request.memory.endUse()
        if uses.leave() { close() }
    }
}
