internal import UserfaultFD

// How one fault is served. Runs on handlers, readers and loaders, and in signal handlers of threads that fault.

extension PagerCore where Source: ~Copyable {
    /// What became of a fault.
    enum Served {
        case done
        /// Another service has the page in hand.
        case left
        /// It is done when the source completes its request.
        case pending
        /// The page is lost: the failure policy was applied.
        case failed
        /// There is no such page any more.
        case gone
        /// To be tried again.
        case later(PendingFault)
        /// The process whose memory it is has ended.
        case ended
    }

    /// So many pages are worth a call of their own behind the one that is waited for.
    private static var longWindow: Int { 32 }
    /// The most pages that a thread reads ahead that must not wait: other pagers' faults wait meanwhile.
    private static var shortTurn: Int { 64 }

    /// Serves one fault: looks up, loads and fills.
    ///
    /// - Parameter readsAhead: Whether to fill pages behind it along with it.
    @inline(__always)
    func serve(
        _ pending: PendingFault, of memory: ServedMemory, with bench: inout Workbench, readsAhead: Bool
    ) -> Served {
        guard !trace.isOn else { return serveTraced(pending, of: memory, with: &bench, readsAhead: readsAhead) }
        return serveUntraced(pending, of: memory, with: &bench, readsAhead: readsAhead)
    }

    @inline(__always)
    func serveUntraced(
        _ pending: PendingFault, of memory: ServedMemory, with bench: inout Workbench, readsAhead: Bool
    ) -> Served {
        if pending.fault.threadID != 0, isSelfDeadlock(pending.fault, of: memory) { return .done }
        var pending = pending
        var behind = 0
        let turn = memory.sharingOrder { (uffd, machine) -> Turn in
            if isPaused { return .order(holdOrRefuse(pending.fault, of: memory, machine)) }
            let order = machine.begin(pending.fault, readAt: pending.since, isSignal: memory.sendsSignals)
            guard case .fill(var claim) = order else { return .order(order) }
            if pending.attempts == 0, !pending.wasTried {
                bench.record.count(pending.fault.kind == .minor ? .minor : .missing, in: claim.region)
            }
            if touches.isOn { note(claim) }
            if readsAhead, !touches.isOn, claim.content == .source, pending.failures == 0 {
                let fitting = Workbench.stagingBytes &>> claim.region.pageShift - 1
                behind = min(fitting, claim.region.readAhead(at: claim.offset))
                if !bench.mayWait, isAskedFirst {
                    pending.ahead = behind
                    behind = min(behind, Self.shortTurn)
                }
                // A few pages come along with the one that is waited for; many come behind it.
                if behind > 0, behind < Self.longWindow {
                    machine.extend(&claim, by: behind)
                    behind = 0
                }
            }
            if pending.isJustNow, let turn = fillAtOnce(claim, of: uffd, machine, with: &bench) {
                return turn
            }
            bench.record.begin(claim.range.start, region: claim.region.bits, since: pending.since)
            return .order(.fill(claim))
        }
        let served: Served
        let page: AddressRange
        switch turn {
        case .filled(let filled, let end, let isAwaited):
            if isAwaited { memory.wake(filled) }
            bench.record.recordFill(end &- pending.since)
            bench.record.recordService(end &- pending.since)
            page = filled
            served = .done
        case .order(.fill(let claim)):
            page = claim.range
            served = fill(claim, for: pending, of: memory, with: &bench)
            bench.record.end()
            if page.count > Workbench.usualBytes, memory.sendsSignals { bench.giveBackStaging() }
        case .order(let order):
            return serveSpecially(order, pending, of: memory, by: bench.record)
        }
        switch served {
        case .done, .pending:
            // Those of a source that answers later are asked for while the page is on its way.
            guard behind > 0 else { break }
            _ = fillUnasked(of: memory, with: &bench, after: page) { machine in
                machine.claim(at: page.end, count: behind)
            }
            if memory.sendsSignals { bench.giveBackStaging() }
        case .left, .failed, .gone, .later, .ended: break
        }
        return served
    }

    /// What is to be done for a fault during a pause: a signal that is not for the pager does not wait for its end.
    private func holdOrRefuse(
        _ fault: PageFault, of memory: ServedMemory, _ machine: borrowing PagerStateMachine
    ) -> Order {
        guard memory.sendsSignals else { return .hold }
        switch machine.cause(ofSignalAt: fault.address) {
        case .missing, .protected: return .hold
        case .nobodys, .lost: return .refuse
        }
    }

    /// Records the first touch of a page.
    private func note(_ claim: Claim) {
        guard let states = claim.states, !states.update(0, { $0.union(.recorded) }).contains(.recorded) else { return }
        touches.note(claim.offset)
    }

    /// Loads and fills pages in hand.
    ///
    /// - Parameter now: The moment, where the caller has looked at the clock already.
    @inline(__always)
    func fill(
        _ claim: Claim, for pending: PendingFault, of memory: ServedMemory, with bench: inout Workbench,
        at now: UInt64? = nil
    ) -> Served {
        var claim = claim
        let filling: Filling
        var start = pending.isJustNow ? pending.since : now ?? MonotonicInstant.now.nanoseconds
        switch claim.content {
        case .zeros where isInFile(claim, askedBy: pending, of: memory):
            bench.record.count(.done, of: .file, claim, isDemand: true)
            return .done
        case .zeros: filling = .zeros
        case .file: filling = .file
        case .poison: filling = .poison
        case .source where isAsynchronous:
            return request(claim, for: pending, of: memory, at: start)
        case .source:
            switch load(&claim, of: memory, with: &bench, at: start) {
            case .loaded(let loaded, let end):
                filling = loaded
                start = end
            case .failed: return fail(claim, pending, of: memory, by: bench.record)
            case .takenAway: return .failed
            case .notReady:
                giveBack(claim, of: memory)
                return leaveToLoader(pending)
            }
        }
        return put(filling, into: claim, for: pending, of: memory, by: bench.record, since: start)
    }

    private enum Loaded {
        case loaded(Filling, at: UInt64)
        /// The claim is of one page.
        case failed
        /// The watchdog has lost patience, and the claim.
        case takenAway
        /// The source would have to be waited for.
        case notReady
    }

    /// Asks the source for pages in hand, and gives back those that it did not answer for.
    ///
    /// - Parameter start: The moment.
    @inline(__always)
    private func load(
        _ claim: inout Claim, of memory: ServedMemory, with bench: inout Workbench, at start: UInt64
    ) -> Loaded {
        let isLimited = configuration.sourceTimeout != nil
        if isLimited { bench.record.beginLoad(claim, of: memory, at: start) }
        let mustNotWait = isAskedFirst && !bench.mayWait
        var answer = mustNotWait ? askIfReady(claim, with: &bench) : ask(claim, with: &bench)
        if isLimited, !bench.record.endLoad() { return .takenAway }
        if answer == nil, mustNotWait { return .notReady }
        if answer == nil, claim.pages > 1 {
            // Which of the pages it is that fails, nobody knows: the one that is waited for gets a chance of its own.
            giveBack(claim.dropFirst(claim.region.pageSize.bytes), of: memory)
            claim = claim.prefix(pages: 1)
            if isLimited { bench.record.beginLoad(claim, of: memory, at: start) }
            answer = ask(claim, with: &bench)
            if isLimited, !bench.record.endLoad() { return .takenAway }
        }
        let end = MonotonicInstant.now.nanoseconds
        bench.record.recordLoad(end &- start)
        guard let answer else { return .failed }
        if case .poison = answer.filling { claim.content = .poison }
        if answer.bytes < claim.range.count {
            giveBack(claim.dropFirst(answer.bytes), of: memory)
            claim = claim.prefix(pages: answer.bytes >> claim.region.pageShift)
        }
        return .loaded(answer.filling, at: end)
    }

    struct Answer {
        let filling: Filling
        /// The pages that it is about: at least one.
        let bytes: Int
    }

    @inline(__always)
    func ask(_ claim: Claim, with bench: inout Workbench) -> Answer? {
        do throws(UserfaultError) { try bench.reserve(claim.region.pageSize.bytes) } catch { return nil }
        return answer(for: claim, with: &bench) { (pages) throws(Source.Failure) in
            try source.load(offset: claim.offset, into: &pages)
        }
    }

    /// As ``ask(_:with:)``, without waiting.
    ///
    /// - Returns: `nil` if that cannot be. Huge pages take long even from memory.
    @inline(__always)
    private func askIfReady(_ claim: Claim, with bench: inout Workbench) -> Answer? {
        guard !claim.region.isHuge else { return nil }
        return answer(for: claim, with: &bench) { pages in source.loadIfReady(offset: claim.offset, into: &pages) }
    }

    /// What the source says of pages in hand, for which it has the room of the bench.
    @inline(__always)
    private func answer<Failure: Error>(
        for claim: Claim, with bench: inout Workbench,
        _ load: (inout OutputRawSpan) throws(Failure) -> PageReply?
    ) -> Answer? {
        let room = unsafe UnsafeMutableRawBufferPointer(
            start: bench.staging.unsafeBaseAddress, count: min(claim.range.count, bench.staging.count))
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let reply = try? load(&pages)
        let appended = unsafe pages.finalize(for: room)
        guard let reply else { return nil }
        return understand(
            reply == .data ? .memory(at: bench.staging.range.start, count: appended) : reply, claim, room.count)
    }

    /// What a reply says of pages in hand.
    ///
    /// - Parameter most: No more than so many bytes.
    /// - Returns: `nil` for a reply about less than a page.
    @inline(__always)
    func understand(_ reply: PageReply, _ claim: Claim, _ most: Int) -> Answer? {
        func answer(_ filling: Filling, _ bytes: Int) -> Answer? {
            let whole = min(bytes, most) & ~(claim.region.pageSize.bytes - 1)
            return whole > 0 ? Answer(filling: filling, bytes: whole) : nil
        }
        return switch reply {
        case .data: nil
        case .memory(let address, let count): answer(.bytes(at: address), count)
        case .movable(let address, let count): answer(.movable(at: address), count)
        case .zeros(let count): answer(.zeros, count)
        case .inFile(let count): answer(.file, count)
        case .poison: answer(.poison, claim.region.pageSize.bytes)
        }
    }

    /// Puts what was loaded into pages in hand, and does what follows from the kernel's answers.
    @inline(__always)
    func put(
        _ filling: Filling, into claim: Claim, for pending: PendingFault, of memory: ServedMemory,
        by record: ThreadRecord, since start: UInt64
    ) -> Served {
        var filling = filling
        var claim = claim
        while true {
            // `nil` as long as the kernel was not asked.
            var outcome: FillOutcome?
            var end = start
            let settlement = memory.sharingOrder { (uffd, machine) -> Settlement in
                if isPaused {
                    _ = machine.giveBack(claim)
                    return Settlement(wake: nil, next: .held)
                }
                guard machine.isCurrent(claim) else {
                    return Settlement(wake: machine.giveBack(claim), next: claim.isAwaited ? .again : .finished)
                }
                // No thread has faulted there just now, and what was loaded takes its time.
                if pending.mayBeForeign(at: start), !memory.mayFill(claim) {
                    // Of pages for which a thread waits, the first is looked at by itself.
                    guard claim.pages == 1 || claim.isAwaited else {
                        return Settlement(wake: machine.giveBack(claim), next: .again)
                    }
                    return machine.settle(claim, .noRange, at: 0)
                }
                var answer = filling.fill(claim, of: uffd, zeros: zeros)
                if answer == .changing, pending.attempts > 0 {
                    answer = fillInALull(&filling, claim, of: uffd, memory)
                }
                outcome = answer
                end = MonotonicInstant.now.nanoseconds
                return machine.settle(claim, answer, at: end)
            }
            if let outcome { record.count(outcome, of: filling, claim, isDemand: claim.isAwaited && pending.job == 0) }
            if let range = settlement.wake { memory.wake(range) }
            switch settlement.next {
            case .finished where outcome == .exists && claim.states == nil && memory.sendsSignals:
                // Of what a region has grown over nothing is remembered that would tell why the thread has come.
                return letThrough(to: claim.range, of: memory) ? .done : .gone
            case .finished where outcome == nil:
                return .done
            case .finished:
                record.recordFill(end &- start)
                if pending.since != 0 { record.recordService(end &- pending.since) }
                // A source may say of a page that it is lost.
                return claim.content == .poison && outcome == .done ? .failed : .done
            case .fill(let rest):
                filling = filling.dropFirst(Int(rest.range.start &- claim.range.start))
                claim = rest
            case .gone: return .gone
            case .again: return again(pending)
            case .held: return hold(pending, of: memory)
            case .ended: return .ended
            case .failed(let failed):
                // After another failure the file may have the page, with what clients have written to it.
                if case .file = filling, outcome == .noPage {
                    source.forget(offset: failed.offset, count: failed.range.count)
                    if pending.absences < 3 {
                        // Dropped since the source said so: it is asked again, and has not failed.
                        giveBack(failed, of: memory)
                        var absent = pending
                        absent.absences += 1
                        return again(absent)
                    }
                }
                return fail(failed, pending, of: memory, by: record)
            }
        }
    }

    /// Tries again and again until the program's next event is there to be read.
    ///
    /// A program that changes its memory all the time does anything else for less than a microsecond in each round: who sleeps
    /// misses that. In the order, so that nobody reads the event with which the next round begins.
    @inline(never)
    private func fillInALull(
        _ filling: inout Filling, _ claim: Claim, of uffd: borrowing UserfaultFD, _ memory: ServedMemory
    ) -> FillOutcome {
        let end = MonotonicInstant.now.nanoseconds &+ 200_000
        repeat {
            // What is unmapped meanwhile may be another's before the next attempt, and nothing tells of it.
            guard memory.hearsOfUnmapping || memory.isHolder(of: claim) else { return .noRange }
            for _ in 0..<16 {
                let outcome = filling.fill(claim, of: uffd, zeros: zeros)
                if outcome != .changing { return outcome }
            }
            guard (try? poll(memory.rawDescriptor, until: Deadline(after: .zero))) == 0 else { return .changing }
        } while MonotonicInstant.now.nanoseconds < end
        return .changing
    }

    /// Gives back pages that are not going to be filled now.
    func giveBack(_ claim: Claim, of memory: ServedMemory) {
        let wake = memory.sharingOrder { _, machine in machine.giveBack(claim) }
        if let wake { memory.wake(wake) }
    }
}
