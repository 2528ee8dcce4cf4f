import CUserfaultFD
import Synchronization

/// Threads that work until they are told to stop; the first failure stops them all.
final class Crew: Sendable {
    private let isStopped = Atomic<Bool>(false)
    private let failure = Mutex<(any Error)?>(nil)
    private let members = Mutex<[TestThread]>([])

    /// Whether the members are to stop.
    var shouldStop: Bool { isStopped.load(ordering: .acquiring) }

    /// Adds a thread that runs `work` once; the work looks at `shouldStop` by itself.
    func add(_ name: String, _ work: @escaping @Sendable () throws -> Void) throws {
        let thread = try TestThread(name) { [self] in
            do {
                try work()
            } catch {
                failure.withLock { if $0 == nil { $0 = error } }
                stop()
            }
        }
        members.withLock { $0.append(thread) }
    }

    /// Tells the members to stop, without waiting.
    func stop() {
        isStopped.store(true, ordering: .releasing)
    }

    /// Waits until the time is over, or a member has failed.
    func work(for duration: Duration) {
        let end = ContinuousClock.now + duration
        while !shouldStop && ContinuousClock.now < end { Threads.pause() }
        stop()
    }

    /// Waits until every member has ended; throws what the first of them threw.
    func join(within limit: Duration = .seconds(60), _ what: String) throws {
        for thread in members.withLock({ $0 }) {
            // Where one has failed, the others may be stuck because of it: that failure is the one to tell.
            do { try thread.join(within: limit, what) } catch {
                if let first = failure.withLock({ $0 }) { throw first }
                throw error
            }
        }
        if let first = failure.withLock({ $0 }) { throw first }
    }
}

/// Small things about threads.
enum Threads {
    /// Gives the processor away for a moment.
    ///
    /// Only for loops that wait for a time to be over.
    static func pause() {
        _ = cuffd_poll(-1, 0, 1)
    }
}
