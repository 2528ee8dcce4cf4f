internal import Synchronization
internal import UserfaultFD

// The end of a descriptor. Others may hold it too: a guardian, a client, the child of a fork. So it is not enough to
// close it. Runs on the thread that stops the pager.

/// What the thread reads with that stops a pager.
///
/// Made before: it must not allocate where a fork holds the heap's locks and waits until its event is read.
struct LastReading: ~Copyable {
    fileprivate var batch = EventBatch(capacity: 16)
    var spare = EventBatch(capacity: 16)
    /// Keeps a number free for the descriptor of a child, in a process that has all it may have.
    fileprivate var reserve: EventFD?

    init(followsForks: Bool) throws(UserfaultError) {
        reserve = followsForks ? try EventFD() : nil
    }
}

/// How long a program is waited for that changes its memory while the pager stops.
private struct Patience {
    private let deadline: Deadline
    /// However much it goes on changing.
    private let end: Deadline
    /// As long as it does not.
    private var lull = Deadline(after: .seconds(1))

    init(until deadline: Deadline) {
        self.deadline = deadline
        end = Deadline(after: .seconds(30))
    }

    mutating func noteProgress() { lull = Deadline(after: .seconds(1)) }

    var isOver: Bool { deadline.hasPassed && (lull.hasPassed || end.hasPassed) }
}

extension PagerCore where Source: ~Copyable {
    /// Leaves all memory behind as nobody's: what is still open is poisoned and not shown as zeros, and nothing is
    /// registered, so that nothing waits, or raises an event, any more.
    ///
    /// While the reading threads still read, where there are any; where there are none, it reads itself. What a source
    /// is being asked for is poisoned as well: its answer finds nothing to fill.
    func seal(until deadline: Deadline) {
        isSealing.store(true, ordering: .sequentiallyConsistent)
        var poisoned = 0
        let map = openHoleMap()
        for memory in memories { poisoned += seal(memory, map, until: deadline) }
        // Twice: a grandchild that was being taken on may have come to a place that was passed. When its parent has been
        // sealed it is there, and no more are taken on.
        for _ in 0..<2 {
            for child in children where child.beginUse() {
                poisoned += seal(child, nil, until: deadline)
                child.endUse()
            }
        }
        countPoisoned(poisoned)
    }

    /// - Returns: How many pages were poisoned.
    private func seal(_ memory: ServedMemory, _ map: borrowing PagemapScan?, until deadline: Deadline) -> Int {
        guard !memory.isVacant else { return 0 }
        var poisoned = 0
        var events = 0
        var patience = Patience(until: deadline)
        while true {
            let before = (poisoned, events)
            let isSealed = memory.excludingOthers(givingUp: true) { (uffd, machine) -> Bool in
                guard poisonTheRest(of: memory, &machine, uffd, map, &poisoned, &events) else { return false }
                while let span = machine.firstSpan(where: { $0.id != Sentinel.regionID }) {
                    release(span, of: memory, uffd, machine, map)
                    machine.forgetSpan(span)
                }
                // A child that was forked meanwhile has its parent's poison.
                _ = readTheRest(of: memory, &machine, uffd)
                memory.isSealed = true
                return true
            }
            if isSealed { return poisoned }
            if (poisoned, events) != before { patience.noteProgress() }
            // Its program has stopped within a change of its memory, or changes it without end.
            if patience.isOver {
                killOwner()
                return poisoned
            }
            pauseThread(for: .microseconds(50))
        }
    }

    /// Reads what nobody has read, and poisons what is still open.
    ///
    /// - Returns: `false` if the program must first go on.
    private func poisonTheRest(
        of memory: ServedMemory, _ machine: inout PagerStateMachine, _ uffd: borrowing UserfaultFD,
        _ map: borrowing PagemapScan?, _ poisoned: inout Int, _ events: inout Int
    ) -> Bool {
        // Between two changes of a program that does little else there is not much time, and sleeping misses it.
        for attempt in 1...512 {
            guard let read = readTheRest(of: memory, &machine, uffd) else { return false }
            events += read
            // Where the kernel cannot, all was loaded before.
            let rest = poisonsTheRest ? poisonUnfilled(of: machine, in: uffd, map, count: &poisoned) : .done
            if rest == .failed { killOwner() }
            if rest != .changing {
                let strays = memory.endStrays(poisoning: poisonsStrays, machine, uffd)
                if strays == .failed { killOwner() }
                if strays != .changing { return true }
            }
            if attempt % 32 == 0 { NativeThread.yield() }
        }
        return false
    }

    /// Lets go of memory, as far as it is this descriptor's still: who waits for it looks again.
    func release(
        _ span: Span, of memory: ServedMemory, _ uffd: borrowing UserfaultFD, _ machine: borrowing PagerStateMachine,
        _ map: borrowing PagemapScan?
    ) {
        func release(_ range: AddressRange) {
            uffd.letGo(of: range)
            try? uffd.wake(range)
            if hidesFromChildren(span.region) { showToChildren(range) }
        }
        // Looked for while the two are one mapping.
        let growth = ServedMemory.growth(behind: span, uffd, machine)
        defer { if let growth { release(growth) } }
        // What was unmapped, the events have told.
        guard !memory.hearsOfUnmapping || span.region.isLeaving else { return release(span.range) }
        let page = span.region.pageSize.bytes
        var count = span.range.count
        var address = span.range.start
        while address < span.range.end {
            let part = AddressRange(start: address, count: min(count, Int(span.range.end - address)))
            switch uffd.holder(of: part, modes: span.region.modes) {
            case .processGone: return
            // In a change nobody can tell: most likely it is the program's, whose memory it was.
            case .thisDescriptor, .changing:
                release(part)
                address = part.end
                count = min(2 * count, span.range.count)
            case .another: address = part.end
            case .nobody where part.count > page: count = max(page, part.count / page / 2 * page)
            case .nobody:
                // A thread may have waited for it when it went.
                try? uffd.wake(part)
                address = endOfHole(after: part, span.region, in: machine, map)
            }
        }
    }

    /// Takes in the events that nobody has read, in a pager that was not started: there is nobody else to do it.
    ///
    /// Runs on callers that let regions go.
    func readBeforeStart(_ memory: ServedMemory) {
        phase.withLock { phase in
            // Whoever starts or stops the pager waits until this is done.
            guard phase == .new else { return }
            memory.excludingOthers { uffd, machine in
                _ = readTheRest(of: memory, &machine, uffd, usingReserve: false)
            }
            // Faults that were read come again.
            memory.wakeAll()
        }
    }

    /// Takes in the events that nobody has read; who faults is woken by what follows.
    ///
    /// - Returns: How many messages there were; `nil` if the child of a fork waits for a descriptor, and none is free.
    private func readTheRest(
        of memory: ServedMemory, _ machine: inout PagerStateMachine, _ uffd: borrowing UserfaultFD,
        usingReserve: Bool = true
    ) -> Int? {
        var sum = 0
        guard !uffd.enabledFeatures.isDisjoint(with: .events) else { return sum }
        while true {
            let count: Int?
            // A process that has ended has no events.
            do { count = unsafe try memory.read(uffd, into: &lastReading.batch) } catch { return sum }
            guard let count else {
                guard usingReserve, unsafe lastReading.reserve.take() != nil else { return nil }
                continue
            }
            guard count > 0 else { return sum }
            sum += count
            while let event = unsafe lastReading.batch.next() {
                unsafe try? take(event, of: memory, &machine, uffd, &lastReading.spare)
            }
        }
    }

    /// Poisons what was neither loaded nor dropped, as far as it is this descriptor's still.
    ///
    /// - Parameters:
    ///   - map: What tells where memory is mapped, if that can be asked.
    ///   - region: One region, or `nil` for all.
    ///   - passed: Pages that are passed over.
    ///   - isNoted: Whether these are the machine's own pages, whose states tell what has become of them.
    ///   - count: Raised by how many pages were poisoned.
    /// - Returns: ``FillOutcome/done``; ``FillOutcome/changing`` where the program must first go on;
    ///   ``FillOutcome/failed`` where a page could not be poisoned.
    func poisonUnfilled(
        of machine: borrowing PagerStateMachine, in uffd: borrowing UserfaultFD, _ map: borrowing PagemapScan?,
        region: RegionReference? = nil, passingOver passed: PageState = PageState(), isNoted: Bool = true,
        count: inout Int
    ) -> FillOutcome {
        var result = FillOutcome.done
        var address: UInt = 0
        var limit = Self.poisonPages
        while let run = machine.firstUnfilledRun(of: region, from: address, pages: limit, passingOver: passed) {
            let page = run.region.pageSize.bytes
            switch uffd.holder(of: run.range, modes: run.region.modes) {
            case .changing: return .changing
            case .processGone: return .done
            case .another: address = run.range.end
            case .nobody where run.range.count > page:
                limit = max(1, run.range.count / page / 2)
                address = run.range.start
            case .nobody: address = endOfHole(after: run.range, run.region, in: machine, map)
            case .thisDescriptor:
                limit = min(2 * limit, Self.poisonPages)
                switch FillOutcome.poisoning(run.range, of: run.region, isNoted ? run.states : nil, in: uffd) {
                case .changing: return .changing
                case .processGone: return .done
                case .done:
                    count += notePoisoned(run, run.range.count, isNoted)
                    address = run.range.end
                case .stopped(let bytes):
                    count += notePoisoned(run, bytes, isNoted)
                    address = run.range.start &+ UInt(bytes)
                case .exists, .noRange:
                    address = run.range.start &+ UInt(page)
                case .failed, .noPage:
                    result = .failed
                    address = run.range.start &+ UInt(page)
                }
            }
        }
        return result
    }

    private func notePoisoned(_ run: UnfilledRun, _ bytes: Int, _ isNoted: Bool) -> Int {
        let pages = bytes >> run.region.pageShift
        guard isNoted else { return pages }
        for page in 0..<pages { run.states.update(page) { $0.union(.poisoned) } }
        return pages
    }

    // MARK: Pages in hand

    /// Poisons what no thread has in hand, and waits for those that have something.
    func poisonTheUntouched(_ region: RegionReference? = nil, until deadline: Deadline) {
        if poisonsTheRest {
            var poisoned = 0
            let map = openHoleMap()
            func poison(_ memory: ServedMemory, _ map: borrowing PagemapScan?) {
                memory.sharingOrder { uffd, machine in
                    _ = poisonUnfilled(
                        of: machine, in: uffd, map, region: region, passingOver: .claimed, count: &poisoned)
                }
            }
            for memory in memories { poison(memory, map) }
            for child in children where child.beginUse() {
                poison(child, nil)
                child.endUse()
            }
            countPoisoned(poisoned)
        }
        awaitWork(region, until: deadline)
    }

    /// Waits for pages that a thread or a request has in hand: as long as their sources take, but not past a deadline.
    ///
    /// - Parameter region: One region, or `nil` for all.
    func awaitWork(_ region: RegionReference? = nil, until deadline: Deadline) {
        while !deadline.hasPassed {
            let isWorking =
                registry.withLock { registry in
                    registry.records.contains { record in
                        region.map { record.isWorking(on: $0.bits) } ?? record.isWorking
                    }
                } || requests.contains { region == nil || $0.claim.region == region }
            guard isWorking else { return }
            pauseThread(for: .microseconds(100))
        }
    }

    /// The most pages that are poisoned by one call.
    private static var poisonPages: Int { 512 }
}
