import Glibc

/// What a stress run does.
package struct StressOptions: Sendable {
    /// The memory to stress.
    package var memory: MemoryType
    /// The size of an area, in MiB.
    package var mebibytes: Int
    /// The numbers of the bounces, in their order; the bits of each say how it works, see ``BounceMode``.
    var bounces: [Int]
    /// How long each mode that is not a bounce runs.
    package var duration: Duration
    /// How many threads of each kind; as many as processors where `nil`.
    package var threads: Int?
    /// What to do.
    package var modes: [StressMode]

    /// - Parameter bounces: How often the areas change places; sixteen times have every mode, counted down as upstream does.
    package init(
        memory: MemoryType, mebibytes: Int, bounces: Int, duration: Duration = .seconds(2), threads: Int? = nil,
        modes: [StressMode] = StressMode.allCases
    ) {
        self.memory = memory
        self.mebibytes = mebibytes
        self.bounces = (0..<bounces).reversed()
        self.duration = duration
        self.threads = threads
        self.modes = modes
    }

    var threadCount: Int { threads ?? min(max(2, Processors.online), 32) }
}

/// A way of stressing memory.
package enum StressMode: String, CaseIterable, Sendable {
    /// Two areas change places; threads lock pages, copy them and write-protect them all at once: upstream's scheme.
    case bounce
    /// Minor faults resolved by CONTINUE, each twice, while the mappings are dropped again and again.
    case minor
    /// Faults under storms of madvise, mremap and fork, each with its events.
    case events
    /// Fills that race with truncation and with holes being punched.
    case truncate

    /// Whether there is such a stress for this memory.
    package func suits(_ memory: MemoryType) -> Bool {
        switch self {
        case .bounce: true
        case .minor: memory != .anon
        case .events: !memory.isHugetlb
        case .truncate: memory.isShmem
        }
    }
}

/// The processors of the machine.
enum Processors {
    static var online: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
}

/// Says that a stress run cannot be had here; the command's exit code is a skip's.
package struct StressSkip: Error {
    package let reason: String
}
