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
        forks = Privilege.hasTracing
    }

    func run() throws {
        let workers = try (0..<stress.options.threadCount).map { try Worker(stress, seed: $0, forks: forks) }
        for worker in workers {
            try crew.add("worker") { [self] in
                try worker.work(until: crew) { kind in counts.withLock { $0[kind, default: 0] += 1 } }
            }
        }
        let kinds = ["touches", "madvises", "mremaps"] + (forks ? ["forks"] : [])
        try crew.work(for: stress.options.duration, "one of each: \(kinds.joined(separator: ", "))") { [self] in
            counts.withLock { counts in kinds.allSatisfy { counts[$0] != nil } }
        }
        try crew.join("the workers stop")
        // Not before: a fork waits until every monitor of the process has read of it.
        let served = try workers.reduce(0) { try $0 + $1.stop() }
        try expect(served > 0, "pages are filled while they are dropped and moved", seen: "none")
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

        /// - Parameter count: Takes the name of each thing done.
        func work(until crew: Crew, count: (String) -> Void) throws {
            var generator = SeededGenerator(seed: seed)
            var (here, there) = (area.range, other)
            while !crew.shouldStop {
                let page = Int.random(in: 0..<16, using: &generator)
                let address = here.start + UInt(page * area.pageSize.bytes)
                switch Int.random(in: 0..<20, using: &generator) {
                case 0..<13:
                    try Pattern.expect(seed: 0, page: page, at: address, count: area.pageSize.bytes, "a touched page")
                    count("touches")
                case 13..<17:
                    let length = min(4, 16 - page) * area.pageSize.bytes
                    let answer = RawMemory.advise(AddressRange(start: address, count: length), .dontNeed)
                    try expectEqual(answer, 0, "answer of madvise")
                    count("madvises")
                case 17..<19:
                    _ = try Remapping.move(here, to: there)
                    // The place that was left may be somebody else's by now.
                    (here, there) = (there, try reserve(here.count))
                    count("mremaps")
                default:
                    guard forks else { continue }
                    let seen = try Child([.load(address), .load(here.start)]).finish()
                    let right = [page, 0].map { Int64(Pattern.word(seed: 0, page: $0, index: 0) & 0xFF) }
                    try expectEqual(seen, right, "bytes that a child read")
                    count("forks")
                }
            }
        }
    }
}
