internal import Synchronization
internal import UserfaultFD

// A thread that reads the messages of many descriptors.

/// Waits for messages of any number of descriptors, and has each pager read its own: a few at a time, in turns.
///
/// A reader that only hands over takes no memory from the heap, runs nothing of the user's and takes no lock that is held
/// where either is done: the thread that it would wait for may be inside `fork`, which waits for this thread to read of
/// it. One that serves in place asks the sources: of descriptors that report forks it reads those of other processes alone.
final class Reader: Sendable {
    private let set: PollSet
    private let kick: EventFD
    /// Odd while it works on what was ready, even while it waits.
    private let round = Atomic<UInt64>(0)
    private let awaiting = Atomic<Int>(0)
    private let passed = FutexWord()
    /// A pager with which the thread is to rehearse.
    private let rehearsal = Mutex<(any RuntimeMember)?>(nil)
    private let isWarm = Mutex(false)
    /// The thread's id, once it runs.
    private let thread = Atomic<Int32>(0)
    /// How many pagers it reads for.
    let members = Atomic<Int>(0)

    /// The address of no ``ServedMemory``.
    private static var kickToken: UInt64 { 0 }
    /// The round of a thread that has ended.
    private static var end: UInt64 { .max - 1 }

    init() throws(UserfaultError) {
        set = try PollSet()
        kick = try EventFD()
        try set.add(kick, token: Self.kickToken)
    }

    /// What the thread does, until the runtime ends.
    func run(with handler: inout Handler, until isEnding: borrowing Atomic<Bool>) throws(UserfaultError) {
        thread.store(NativeThread.currentID, ordering: .relaxed)
        while !isEnding.load(ordering: .acquiring) {
            try wait(&handler, isEnding)
            beginRound()
            while let ready = handler.ready.next() { read(ready.token, ready.readiness, &handler) }
            endRound()
        }
    }

    private func read(_ token: UInt64, _ readiness: PollSet.Readiness, _ handler: inout Handler) {
        guard let memory = unsafe memory(of: token) else {
            kick.clear()
            rehearse(&handler)
            return
        }
        unsafe memory.member?.read(memory, readiness, with: &handler)
    }

    // MARK: Before forks

    /// Has the thread do once all that reading may come to, before it reads for the first pager.
    ///
    /// In programs that are not optimized nearly every call takes memory from the heap: what a thread has taken and given
    /// back is its own from then on.
    func warm(with member: any RuntimeMember) {
        isWarm.withLock { isWarm in
            guard !isWarm else { return }
            rehearsal.withLock { $0 = member }
            wake()
            while true {
                let seen = passed.changes
                if hasPassed(Self.end) || rehearsal.withLock({ $0 == nil }) { break }
                passed.wait(while: seen, until: .never)
            }
            isWarm = true
        }
    }

    private func rehearse(_ handler: inout Handler) {
        guard let member = rehearsal.withLock(\.self) else { return }
        member.rehearse(with: &handler)
        rehearsal.withLock { $0 = nil }
        passed.signal()
    }

    /// What reading of a descriptor comes to, but for the descriptor's own.
    func rehearse(_ memory: ServedMemory, with handler: inout Handler) {
        var ready = ReadyBatch(capacity: 1)
        _ = try? set.wait(into: &ready, timeout: .zero)
        _ = ready.next()
        read(token(of: memory), .readable, &handler)
    }

    /// Says that the thread comes back to nothing.
    func leave() {
        round.store(Self.end, ordering: .sequentiallyConsistent)
        passed.signal()
    }

    /// Whether a thread is the one that reads.
    func isThread(_ id: Int32) -> Bool { thread.load(ordering: .relaxed) == id }

    private func wait(_ handler: inout Handler, _ isEnding: borrowing Atomic<Bool>) throws(UserfaultError) {
        let budget = handler.waiter.budget()
        let learns = handler.waiter.learns
        let start = learns || budget > 0 ? MonotonicInstant.now.nanoseconds : 0
        defer { if learns { handler.waiter.learn(MonotonicInstant.now.nanoseconds &- start, budget: budget) } }
        while budget > 0, MonotonicInstant.now.nanoseconds &- start < budget, !isEnding.load(ordering: .relaxed) {
            if try set.wait(into: &handler.ready, timeout: .zero) > 0 { return }
        }
        try set.wait(into: &handler.ready)
    }

    // MARK: Descriptors

    private func token(of memory: ServedMemory) -> UInt64 {
        UInt64(UInt(bitPattern: unsafe Unmanaged.passUnretained(memory).toOpaque()))
    }

    /// The memory of a token, which is not let go before ``awaitPass(of:until:)`` says so.
    @unsafe private func memory(of token: UInt64) -> ServedMemory? {
        guard let address = unsafe UnsafeRawPointer(bitPattern: UInt(token)) else { return nil }
        return unsafe Unmanaged<ServedMemory>.fromOpaque(address).takeUnretainedValue()
    }

    /// Begins to read a descriptor.
    func add(_ memory: ServedMemory) throws(UserfaultError) {
        try set.add(rawDescriptor: memory.rawDescriptor, token: token(of: memory))
    }

    /// Begins to read a descriptor that is about to be opened.
    func add(_ descriptor: borrowing UserfaultFD, for memory: ServedMemory) throws(UserfaultError) {
        try set.add(descriptor, token: token(of: memory))
    }

    /// Reads a descriptor no more, as soon as what it works on is done.
    func remove(_ memory: ServedMemory) { set.discard(rawDescriptor: memory.rawDescriptor) }

    // MARK: Letting go

    private func beginRound() { round.add(1, ordering: .sequentiallyConsistent) }

    private func endRound() {
        round.add(1, ordering: .sequentiallyConsistent)
        if awaiting.load(ordering: .sequentiallyConsistent) > 0 { passed.signal() }
    }

    /// A moment after which the reader does not come to descriptors that were removed before now.
    ///
    /// A wait that had begun before may still bring them.
    var departure: UInt64 {
        let now = round.load(ordering: .sequentiallyConsistent)
        // A thread that has ended comes to nobody.
        guard now < Self.end else { return now }
        return now + (now & 1 == 0 ? 2 : 1)
    }

    func hasPassed(_ departure: UInt64) -> Bool { round.load(ordering: .sequentiallyConsistent) >= departure }

    /// Waits until the reader has passed a moment.
    ///
    /// - Returns: `false` if it has not by the deadline.
    func awaitPass(of departure: UInt64, until deadline: Deadline) -> Bool {
        awaiting.add(1, ordering: .sequentiallyConsistent)
        defer { awaiting.subtract(1, ordering: .sequentiallyConsistent) }
        wake()
        while true {
            let seen = passed.changes
            if hasPassed(departure) { return true }
            if deadline.hasPassed { return false }
            passed.wait(while: seen, until: deadline)
        }
    }

    /// Has it look whether the runtime ends.
    func wake() { kick.signal() }

    /// In which work it is: 0 while it waits for messages.
    var work: UInt64 {
        let now = round.load(ordering: .sequentiallyConsistent)
        return now & 1 == 0 ? 0 : now
    }
}
