internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Runs on every thread of a pager.

/// One descriptor, what the engine knows of its memory, and the order between the two.
///
/// Fills share the order, and reading events excludes them: the kernel lets a thread that changes its memory go on as
/// soon as the event is *read*, so a fill between reading and taking it in could bring back what was just removed.
/// Without event features only adding and removing regions excludes anything.
///
/// Made empty, and opened without taking memory from the heap: that may happen while another thread is inside `fork`.
@safe
final class ServedMemory: @unchecked Sendable {
    private let order: ReadWriteLock
    private let uffd: UnsafeMutablePointer<UserfaultFD>
    private let machine: UnsafeMutablePointer<PagerStateMachine>
    private let state = Atomic<UInt8>(State.vacant.rawValue)
    /// Threads and queued faults that need it open.
    private let users = Atomic<Int>(0)
    /// The process whose memory it is has ended.
    private let ended = Atomic<Bool>(false)

    private enum State: UInt8 {
        case vacant, open, closing
    }

    /// Whether reading may bring more than faults.
    ///
    /// Of an open one.
    private(set) var hasEvents = false
    private(set) var canPoison = false
    /// Whether the kernel tells when memory is not this descriptor's any more.
    private(set) var hearsOfUnmapping = false
    /// Its place among the pager's descriptors; set before any thread runs.
    var number = 0
    /// From which of the pager's own descriptors it comes, by forks; set before any thread runs, or before it is opened.
    var shard = 0
    /// Whether the thread that reads sleeps there; set before any thread runs.
    ///
    /// Otherwise a process that makes the descriptor block must not hold up a thread that serves others.
    var waitsInRead = false
    /// Faults of no region whose threads wait for one.
    let kept = Mutex(FaultList(upTo: 4000))
    /// Which lock orders questions about whose memory it is; set before any thread runs.
    var holdingPlace: UInt32 = 0 {
        didSet { if !isVacant { unsafe uffd.pointee.holdingPlace = holdingPlace } }
    }
    /// Whose it is; set before any thread runs, and gone with it.
    unowned(unsafe) var member: (any RuntimeMember)?
    /// Nothing is served any more.
    ///
    /// In the order.
    var isSealed = false
    private(set) var rawDescriptor: CInt = -1
    /// Where changes are written down for a successor.
    ///
    /// Set before any thread runs.
    var journal: StateFile?
    /// Whether the kernel sends signals in place of messages: then threads wait for each other here, and not in the
    /// kernel.
    private(set) var sendsSignals = false
    /// Counts services that have ended for which other threads wait.
    private let settled = FutexWord()
    private let creator = currentProcessID
    /// When all messages were read last.
    private let lastReading = Atomic<UInt64>(0)
    /// How often what is served here has changed, from the first opening on.
    ///
    /// It never falls: what comes in the place of what has ended is a change.
    private let changes = Atomic<UInt64>(0)

    /// - Parameter parts: Those of the order's lock.
    init(parts: Int = 1) throws(PagerError) {
        order = try asPagerError { () throws(UserfaultError) in try ReadWriteLock(parts: parts) }
        unsafe uffd = .allocate(capacity: 1)
        unsafe machine = .allocate(capacity: 1)
    }

    convenience init(_ descriptor: consuming UserfaultFD) throws(PagerError) {
        // Of changes that exclude others there are few if no message tells of them.
        try self.init(parts: descriptor.enabledFeatures.contains(.sigbus) ? 16 : 1)
        open(
            descriptor, try asPagerError { () throws(UserfaultError) in try PagerStateMachine() })
    }

    deinit {
        if currentProcessID == creator {
            close()
        } else if state.load(ordering: .sequentiallyConsistent) == State.open.rawValue {
            // A copy in a child of a fork: threads of the parent's have no more part in it, and what they had begun
            // stays as it is, their locks held. Only the descriptor is whole for sure.
            unsafe uffd.deinitialize(count: 1)
        }
        unsafe machine.deallocate()
        unsafe uffd.deallocate()
    }

    // MARK: Opening and closing

    /// Fills a vacant one.
    func open(_ descriptor: consuming UserfaultFD, _ machine: consuming PagerStateMachine) {
        hasEvents = !descriptor.enabledFeatures.isDisjoint(with: .events)
        canPoison = descriptor.supportedFeatures.contains(.poison)
        hearsOfUnmapping = descriptor.enabledFeatures.contains(.eventUnmap)
        isSealed = false
        sendsSignals = descriptor.enabledFeatures.contains(.sigbus)
        rawDescriptor = descriptor.withUnsafeDescriptor { $0.rawValue }
        unsafe uffd.initialize(to: descriptor)
        unsafe uffd.pointee.holdingPlace = holdingPlace
        unsafe self.machine.initialize(to: machine)
        ended.store(false, ordering: .relaxed)
        state.store(State.open.rawValue, ordering: .sequentiallyConsistent)
        // Afterwards: who has seen it finds what has come.
        changes.add(1, ordering: .sequentiallyConsistent)
    }

    /// How often what is served here has changed.
    var changeCount: UInt64 { changes.load(ordering: .sequentiallyConsistent) }

    var isVacant: Bool { state.load(ordering: .acquiring) == State.vacant.rawValue }

    /// Keeps it open until ``endUse()``.
    ///
    /// - Returns: `false` where it is not open.
    func beginUse() -> Bool {
        users.add(1, ordering: .sequentiallyConsistent)
        guard state.load(ordering: .sequentiallyConsistent) != State.open.rawValue else { return true }
        endUse()
        return false
    }

    func endUse() { users.subtract(1, ordering: .sequentiallyConsistent) }

    /// Closes the descriptor and forgets what it served, where nobody uses it.
    ///
    /// What was neither filled nor poisoned reads as zeros from now on: that is for the caller to have seen to.
    ///
    /// - Returns: `false` where somebody uses it still: to be called again. Never by two threads.
    @discardableResult
    func close() -> Bool {
        guard !isVacant else { return true }
        state.store(State.closing.rawValue, ordering: .sequentiallyConsistent)
        guard users.load(ordering: .sequentiallyConsistent) == 0 else { return false }
        kept.withLock { $0.removeAll() }
        unsafe machine.deinitialize(count: 1)
        unsafe uffd.deinitialize(count: 1)
        state.store(State.vacant.rawValue, ordering: .sequentiallyConsistent)
        return true
    }

    var hasEnded: Bool { ended.load(ordering: .acquiring) }

    func noteEnd() { ended.store(true, ordering: .releasing) }

    // MARK: Use

    /// Calls that need no order: waking, polling, registering.
    @inline(__always)
    func withDescriptor<Result, Failure: Error>(
        _ body: (borrowing UserfaultFD) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe body(uffd.pointee)
    }

    /// Looks up and fills, while nothing changes.
    @inline(__always)
    func sharingOrder<Result, Failure: Error>(
        _ body: (borrowing UserfaultFD, borrowing PagerStateMachine) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let blocked = blockSignals()
        defer { restoreSignals(blocked) }
        order.lockForReading()
        defer { order.endReading() }
        return try unsafe body(uffd.pointee, machine.pointee)
    }

    /// Looks up on a thread that shares the order already: it would wait behind a writer who waits for it.
    func withinOrder<Result>(_ body: (borrowing PagerStateMachine) -> Result) -> Result {
        unsafe body(machine.pointee)
    }

    /// Takes in changes, while nobody looks up or fills.
    ///
    /// - Parameters:
    ///   - isRepeated: Whether it is one of many in a row, between which those come in who wait. Reading does not wait for
    ///     them: threads of the program wait for it.
    ///   - givesUp: Whether threads that have faulted already may find that their page is nobody's.
    @inline(__always)
    func excludingOthers<Result, Failure: Error>(
        isRepeated: Bool = false, givingUp givesUp: Bool = false,
        _ body: (borrowing UserfaultFD, inout PagerStateMachine) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let blocked = blockSignals()
        defer { restoreSignals(blocked) }
        if sendsSignals, givesUp { FaultSignal.noteChange() }
        order.lockForWriting(lettingReadersIn: isRepeated)
        defer { order.endWriting() }
        let before = unsafe machine.pointee.changes
        defer {
            let now = unsafe machine.pointee.changes
            if now != before { changes.add(now &- before, ordering: .sequentiallyConsistent) }
            unsafe journal?.note(machine.pointee, changed: now != before)
        }
        return try unsafe body(uffd.pointee, &machine.pointee)
    }

    /// Blocks signals if a handler of the program's that touches the memory would need the order in this very thread.
    ///
    /// Not `BlockedSignals.during`, which the compiler does not specialize: it is twice on the way of every fault.
    @inline(__always)
    private func blockSignals() -> UInt64? { sendsSignals ? BlockedSignals.block() : nil }

    @inline(__always)
    private func restoreSignals(_ mask: UInt64?) {
        if let mask { BlockedSignals.restore(mask) }
    }

    /// Reads in the exclusion.
    ///
    /// - Returns: `nil` where there is no descriptor free for the child of a fork.
    func read(_ uffd: borrowing UserfaultFD, into batch: inout EventBatch) throws(UserfaultError) -> Int? {
        if let journal { return try journal.read(uffd, into: &batch, neverWaits: !waitsInRead) }
        return try uffd.readWhereDescriptorsAreFree(into: &batch, neverWaits: !waitsInRead)
    }

    /// Reads of a descriptor that reports no events but faults.
    func readFaults(into batch: inout EventBatch) throws(UserfaultError) -> Int {
        try withDescriptor { (uffd) throws(UserfaultError) in
            try uffd.readWhereDescriptorsAreFree(into: &batch, neverWaits: !waitsInRead) ?? 0
        }
    }

    /// Notes that messages were read; on the thread that reads.
    ///
    /// - Parameter batch: What was read. If it is full, messages that are just as old may be left.
    /// - Returns: Whether they may have waited for that: nobody has read all for a while, be it because there was nothing.
    @inline(__always)
    func noteReading(of batch: borrowing EventBatch, at moment: UInt64) -> Bool {
        let before = lastReading.load(ordering: .relaxed)
        let most = journal == nil ? batch.capacity : min(batch.capacity, StateFile.batchCapacity)
        if batch.count < most { lastReading.store(moment, ordering: .relaxed) }
        return moment &- before > 10_000_000
    }

    /// A second descriptor of the same kernel object.
    func duplicate() throws(UserfaultError) -> UserfaultFD { try unsafe uffd.pointee.duplicate() }

    /// Wakes threads that nobody else will.
    ///
    /// A wake fails for no reason that a caller could mend.
    func wake(_ range: AddressRange) {
        guard !sendsSignals else { return settled.signal() }
        try? withDescriptor { (uffd) throws(UserfaultError) in try uffd.wake(range) }
    }

    /// Has those look again who wait for pages that others have in hand.
    func noteSettling() { settled.signal() }

    /// Waits until no service has a page in hand.
    ///
    /// Each look has the service that has the page say when it gives it back: it says so once. Now and then it looks unasked.
    func awaitSettling(of address: UInt) {
        while true {
            let seen = settled.changes
            let isInHand = sharingOrder { _, machine -> Bool in
                guard let span = machine.spans.find(address), let states = span.states else { return false }
                let before = states.update(span.page(at: address)) { $0.contains(.claimed) ? $0.union(.awaited) : $0 }
                return before.contains(.claimed)
            }
            guard isInHand else { return }
            settled.wait(while: seen, until: Deadline(after: .milliseconds(100)))
        }
    }

    /// Whose the memory of pages is, before they are filled without a thread that waits for them; in the order.
    func holder(of claim: Claim) -> RangeHolder {
        unsafe hearsOfUnmapping
            ? uffd.pointee.probe(claim.range) : uffd.pointee.holder(of: claim.range, modes: claim.region.modes)
    }

    /// Whether pages are this descriptor's, as far as anybody can tell: what changes, and who is gone, the fill finds out.
    func isHolder(of claim: Claim) -> Bool {
        switch holder(of: claim) {
        case .thisDescriptor, .changing, .processGone: true
        case .nobody, .another: false
        }
    }

    /// Whether pages may be filled for which no thread waits.
    ///
    /// Where the kernel tells of unmapping, it refuses to fill until that was read, and then the pages are not current any more.
    /// So nothing has to be asked about one page: whether anything is registered there, the fill finds out.
    func mayFill(_ claim: Claim) -> Bool {
        hearsOfUnmapping && claim.pages == 1 && !claim.region.isLeaving || isHolder(of: claim)
    }

    /// Whether pages lie in one mapping with one on which a thread has just faulted: then they are this descriptor's.
    func isInOneMapping(_ range: AddressRange) -> Bool {
        // In the order of a child: see ``probeEndAlone()``. Elsewhere it would only cost time.
        guard hasEvents else { return unsafe uffd.pointee.probe(range) != .nobody }
        return sharingOrder { uffd, _ in uffd.probe(range) != .nobody }
    }

    /// Asks the kernel whether the process whose memory it is has ended.
    func probeEnd() -> Bool { withDescriptor { uffd in uffd.isProcessGone } }

    /// As ``probeEnd()``, while no other call is under way: it would keep the memory of a process that has ended.
    ///
    /// For that, every call for a child is made in the order.
    func probeEndAlone() -> Bool { excludingOthers { uffd, _ in uffd.isProcessGone } }
}
