import UserfaultFD

/// Runs what the options ask for, one mode after the other, and tells how far it is.
package struct StressRun {
    let options: StressOptions
    let context: CaseContext
    let progress: @Sendable (String) -> Void

    /// - Parameter progress: Takes a line after each bounce and each mode.
    package init(_ options: StressOptions, progress: @escaping @Sendable (String) -> Void) {
        self.options = options
        self.progress = progress
        context = CaseContext(memory: options.memory, note: progress)
    }

    init(_ options: StressOptions, in context: CaseContext) {
        self.options = options
        self.context = context
        // A result tells only what is wrong.
        progress = { _ in }
    }

    /// Runs everything.
    ///
    /// - Throws: ``StressSkip`` where the kernel or the host lacks something; ``CaseFailure`` where memory is wrong.
    package func run() throws {
        let features = try UserfaultFD().supportedFeatures
        for mode in options.modes where mode.suits(options.memory) {
            switch mode {
            case .bounce:
                try BounceStress(self, features).run()
            case .minor:
                let needed: UserfaultFD.Features = options.memory.isHugetlb ? .minorHugetlbfs : .minorShmem
                guard features.contains(needed) else {
                    progress("minor: left out, the kernel has no minor faults on \(options.memory.rawValue)")
                    continue
                }
                try MinorStress(self).run()
            case .events:
                try EventStress(self).run()
            case .truncate:
                try TruncateStress(self, features).run()
            }
        }
    }

    /// Pages of an area, at least two for each thread.
    var pageCount: Int {
        get throws {
            let pageSize = options.memory.isHugetlb ? PageSize.defaultHuge ?? .twoMiB : .base
            let perThread = options.mebibytes << 20 / pageSize.bytes / options.threadCount
            guard perThread > 0 else {
                throw StressSkip(reason: "\(options.mebibytes) MiB is less than a page per thread")
            }
            return perThread * options.threadCount
        }
    }
}

/// A sequence of numbers that a seed repeats.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: Int) { state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
}
