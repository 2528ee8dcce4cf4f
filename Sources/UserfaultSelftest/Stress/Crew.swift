import SystemPackage
import UserfaultFD
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

    /// Waits until the time is over and enough is done, or a member has failed.
    ///
    /// - Parameters:
    ///   - work: What counts as enough, for the failure; without it a stress that does nothing would pass.
    ///   - isEnough: Whether so much is done.
    func work(for duration: Duration, _ work: String, until isEnough: () -> Bool) throws {
        let start = ContinuousClock.now
        while !shouldStop && (ContinuousClock.now < start + duration || !isEnough()) {
            guard ContinuousClock.now < start + duration + Waiting.patience else {
                stop()
                throw CaseFailure(expected: "at least \(work)", seen: "less after \(duration + Waiting.patience)")
            }
            Threads.pause()
        }
        stop()
    }

    /// Waits until every member has ended; throws what the first of them threw.
    func join(within limit: Duration = Waiting.patience * 12, _ what: String) throws {
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
    /// Starts a thread that nobody joins; answers 0, or minus the errno.
    static func start(_ name: String, _ body: @escaping @Sendable () -> Void) -> CInt {
        do {
            try NativeThread.detached(name, body)
            return 0
        } catch {
            return -error.errno.rawValue
        }
    }

    /// Gives the processor away for a moment.
    ///
    /// Only for loops that wait for a time to be over.
    static func pause() {
        pauseThread(for: .milliseconds(1))
    }
}
