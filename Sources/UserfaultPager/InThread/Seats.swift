internal import Synchronization
internal import UserfaultFD

// Taken by every thread that serves a fault of its own.

/// Seats for threads that serve their own faults: each has the room of one, and shows that somebody is there.
///
/// Threads begin to look at different seats, which lie in cache lines of their own: on the way none of them waits for
/// another's processor.
@safe
struct Seats: ~Copyable, @unchecked Sendable {
    private struct Seat: ~Copyable {
        /// The thread that has it; 0 for none.
        let holder = Atomic<UInt>(0)
        private let restOfLine = InlineArray<7, UInt>(repeating: 0)
    }

    /// How many faults are served at the same time: a thread that comes when so many are being served waits.
    static var count: Int { 1 << countBits }
    private static var countBits: UInt { 6 }

    private let seats: UnsafeMutablePointer<Seat>
    /// Counts seats that were given back: what threads that found none wait for.
    private let returned = FutexWord()
    private let waiters = Atomic<Int>(0)

    init() {
        unsafe seats = UnsafeMutableRawPointer.allocate(
            byteCount: Self.count * MemoryLayout<Seat>.stride, alignment: MemoryLayout<Seat>.stride
        ).bindMemory(to: Seat.self, capacity: Self.count)
        for index in 0..<Self.count { unsafe (seats + index).initialize(to: Seat()) }
    }

    deinit {
        unsafe seats.deinitialize(count: Self.count)
        unsafe seats.deallocate()
    }

    /// Whether nobody has a seat.
    ///
    /// Whoever takes one afterwards sees what was stored before.
    var areFree: Bool {
        (0..<Self.count).allSatisfy { unsafe seats[$0].holder.load(ordering: .sequentiallyConsistent) == 0 }
    }

    /// The seat that the calling thread has already.
    @inline(__always)
    var mine: Int? { FaultSignal.mayBeNested ? seat(of: FaultSignal.threadToken) : nil }

    /// Calls with a seat of the calling thread's own, which has none; waits for one while all are taken.
    ///
    /// - Parameter isWorthIt: Asked each time before it waits.
    /// - Returns: `nil` if it does not wait.
    @inline(__always)
    func withSeat<Result>(waitingIf isWorthIt: () -> Bool, _ body: (Int) -> Result) -> Result? {
        let thread = FaultSignal.threadToken
        // The distance between threads' stacks does not matter.
        let first = Int((thread &* 0x9e37_79b9_7f4a_7c15) >> (64 - Self.countBits))
        guard let index = isTaken(first, by: thread) ? first : takeNext(first, for: thread, waitingIf: isWorthIt) else {
            return nil
        }
        let result = body(index)
        unsafe seats[index].holder.store(0, ordering: .sequentiallyConsistent)
        if waiters.load(ordering: .sequentiallyConsistent) > 0 { returned.signal(waking: 1) }
        return result
    }

    @inline(never)
    private func seat(of thread: UInt) -> Int? {
        (0..<Self.count).first { unsafe seats[$0].holder.load(ordering: .relaxed) == thread }
    }

    @inline(__always)
    private func isTaken(_ index: Int, by thread: UInt) -> Bool {
        unsafe seats[index].holder.compareExchange(
            expected: 0, desired: thread, ordering: .sequentiallyConsistent
        ).exchanged
    }

    @inline(never)
    private func takeNext(_ first: Int, for thread: UInt, waitingIf isWorthIt: () -> Bool) -> Int? {
        var isWaiting = false
        defer { if isWaiting { waiters.subtract(1, ordering: .relaxed) } }
        while true {
            let seen = returned.changes
            for step in 0..<Self.count {
                let index = (first + step) & (Self.count - 1)
                if unsafe seats[index].holder.load(ordering: .sequentiallyConsistent) == 0,
                    isTaken(index, by: thread)
                {
                    return index
                }
            }
            guard isWorthIt() else {
                // The seat for which this thread was woken is another's to take.
                if isWaiting { returned.signal(waking: 1) }
                return nil
            }
            if isWaiting {
                returned.wait(while: seen, until: .never)
            } else {
                // Looked at once more before sleeping: one may have been given back before this thread was seen to wait.
                waiters.add(1, ordering: .sequentiallyConsistent)
                isWaiting = true
            }
        }
    }

    /// Has threads that wait for a seat ask again whether it is worth it.
    func askAgain() {
        if waiters.load(ordering: .sequentiallyConsistent) > 0 { returned.signal() }
    }

    /// In the child of a fork, which has none of the threads.
    func clear() {
        for index in 0..<Self.count { unsafe seats[index].holder.store(0, ordering: .relaxed) }
        waiters.store(0, ordering: .relaxed)
    }
}
