import CUserfaultFD
import Synchronization
import SystemPackage
import UserfaultFD

/// Threads that touch, drop, move and fork their memory while each one's monitor fills it and reads the events.
///
/// Whatever happens to the pages, each that is filled holds its pattern, in parent and child, before and after a move.
final class EventStress: Sendable {
    private let stress: StressRun
    private let crew = Crew()
    private let counts = Mutex<[String: Int]>([:])
    private let forks: Bool

    init(_ stress: StressRun) throws {
        self.stress = stress
        // FORK is the one event that needs a capability.
        forks = cuffd_has_capability(CUFFD_CAP_SYS_PTRACE) == 1
    }

    func run() throws {
        let workers = try (0..<stress.options.threadCount).map { try Worker(stress, seed: $0, forks: forks) }
        for worker in workers {
            try crew.add("worker") { [self] in
                let done = try worker.work(until: crew)
                counts.withLock { $0.merge(done) { $0 + $1 } }
            }
        }
        crew.work(for: stress.options.duration)
        try crew.join("the workers stop")
        // Not before: a fork waits until every monitor of the process has read of it.
        let served = try workers.reduce(0) { try $0 + $1.stop() }
        counts.withLock { $0["faults"] = served }
        let text = counts.withLock { $0 }.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
        stress.progress("events: " + text.joined(separator: ", ") + (forks ? "" : " (no forks without CAP_SYS_PTRACE)"))
    }

    /// One thread with an area and a monitor of its own.
    private final class Worker: Sendable {
        private let area: Area
        private let monitor: EventMonitor
        private let other: AddressRange
        private let seed: Int
        private let forks: Bool

        init(_ stress: StressRun, seed: Int, forks: Bool) throws {
            area = try Area(stress.context, pages: 16)
            other = try reserve(area.range.count)
            self.seed = seed
            self.forks = forks
            let events: UserfaultFD.Features = [.eventRemap, .eventRemove, .eventUnmap]
            monitor = try EventMonitor(area, features: forks ? events.union(.eventFork) : events)
        }

        /// Ends the serving; answers how many pages were filled.
        func stop() throws -> Int { try monitor.stop() }

        func work(until crew: Crew) throws -> [String: Int] {
            var generator = SeededGenerator(seed: seed)
            var done: [String: Int] = [:]
            var (here, there) = (area.range, other)
            while !crew.shouldStop {
                let page = Int.random(in: 0..<16, using: &generator)
                let address = here.start + UInt(page * area.pageSize.bytes)
                switch Int.random(in: 0..<20, using: &generator) {
                case 0..<13:
                    try Pattern.expect(seed: 0, page: page, at: address, count: area.pageSize.bytes, "a touched page")
                    done["touches", default: 0] += 1
                case 13..<17:
                    let count = min(4, 16 - page) * area.pageSize.bytes
                    let answer = cuffd_madvise(UInt64(address), count, Advice.dontNeed.rawValue)
                    try expectEqual(answer, 0, "answer of madvise")
                    done["madvises", default: 0] += 1
                case 17..<19:
                    _ = try Remapping.move(here, to: there)
                    // The place that was left may be somebody else's by now.
                    (here, there) = (there, try reserve(here.count))
                    done["mremaps", default: 0] += 1
                default:
                    guard forks else { continue }
                    let seen = try Child([.load(address), .load(here.start)]).finish()
                    let right = [page, 0].map { Int64(Pattern.word(seed: 0, page: $0, index: 0) & 0xFF) }
                    try expectEqual(seen, right, "bytes that a child read")
                    done["forks", default: 0] += 1
                }
            }
            return done
        }
    }
}
