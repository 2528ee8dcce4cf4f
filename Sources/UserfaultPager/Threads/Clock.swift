internal import Synchronization
internal import UserfaultFD

// The clock's thread.

/// What the clock works with.
struct ClockTools: ~Copyable {
    /// For messages that nobody else reads.
    var batch = EventBatch(capacity: 64)
}

/// Looks after every pager at its time, and watches processes for their end.
final class Clock: Sendable {
    private let set: PollSet
    private let kick: EventFD
    /// How many pagers watch a process, by its pidfd: owners are shared.
    private let processes = Mutex<[CInt: Int]>([:])
    private let departures = Mutex<[Departure]>([])

    /// A pager that has gone, and that a reader may still work for.
    private struct Departure {
        let member: any RuntimeMember
        let reader: Reader
        let round: UInt64
    }

    private static var kickToken: UInt64 { .max }
    /// How often to look whether a reader has gone on, in nanoseconds.
    private static var departureInterval: UInt64 { 100_000_000 }

    init() throws(UserfaultError) {
        set = try PollSet()
        kick = try EventFD()
        try set.add(kick, token: Self.kickToken)
    }

    /// What the thread does, until the runtime ends.
    func run(
        with tools: inout ClockTools, _ ready: inout ReadyBatch, for runtime: Runtime
    ) throws(UserfaultError) {
        while !runtime.isEnding.load(ordering: .acquiring) {
            var next = lookAtAll(with: &tools, for: runtime)
            if settleDepartures() { next = min(next, MonotonicInstant.now.nanoseconds + Self.departureInterval) }
            _ = try set.wait(into: &ready, until: Deadline(at: MonotonicInstant(nanoseconds: next)))
            while let found = ready.next() {
                guard found.token != Self.kickToken else {
                    kick.clear()
                    continue
                }
                noteEnd(of: CInt(truncatingIfNeeded: found.token), runtime)
            }
        }
    }

    private func lookAtAll(with tools: inout ClockTools, for runtime: Runtime) -> UInt64 {
        var next = UInt64.max
        let members = runtime.members
        for index in members.indices { next = min(next, members[index].look(with: &tools)) }
        return next
    }

    /// Has it look at once.
    func wake() { kick.signal() }

    // MARK: Processes

    /// Watches a process until it ends, or until nobody watches it.
    func watch(_ pidfd: CInt) throws(UserfaultError) {
        guard pidfd >= 0 else { return }
        let result = processes.withLock { processes -> Result<Void, UserfaultError> in
            let count = processes[pidfd] ?? 0
            if count == 0 {
                do throws(UserfaultError) {
                    try set.add(rawDescriptor: pidfd, token: UInt64(pidfd))
                } catch {
                    return .failure(error)
                }
            }
            processes[pidfd] = count + 1
            return .success(())
        }
        try result.get()
    }

    func unwatch(_ pidfd: CInt) {
        processes.withLock { processes in
            guard let count = processes[pidfd] else { return }
            processes[pidfd] = count > 1 ? count - 1 : nil
            if count == 1 { set.discard(rawDescriptor: pidfd) }
        }
    }

    private func noteEnd(of pidfd: CInt, _ runtime: Runtime) {
        // Readable for good: it is told once to those that watch now.
        processes.withLock { processes in
            set.discard(rawDescriptor: pidfd)
            processes[pidfd] = nil
        }
        for member in runtime.members where member.watchedProcess == pidfd { member.noteOwnerEnd() }
    }

    // MARK: Departures

    /// Keeps a pager until a reader has passed a round.
    func keep(_ member: any RuntimeMember, until round: UInt64, of reader: Reader) {
        departures.withLock { $0.append(Departure(member: member, reader: reader, round: round)) }
        wake()
    }

    /// Lets go those that no reader works for any more.
    ///
    /// - Returns: Whether there are others.
    @discardableResult
    func settleDepartures() -> Bool {
        let (gone, isLeft) = departures.withLock { departures -> ([Departure], Bool) in
            guard !departures.isEmpty else { return ([], false) }
            var gone: [Departure] = []
            departures.removeAll { departure in
                guard departure.reader.hasPassed(departure.round) else { return false }
                gone.append(departure)
                return true
            }
            return (gone, !departures.isEmpty)
        }
        for departure in gone { departure.member.readerHasLeft() }
        return isLeft
    }
}
