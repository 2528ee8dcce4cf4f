internal import UserfaultFD

extension PagerConfiguration {
    /// Finds contradictions: in itself, with the features of a descriptor, with whose memory it is.
    ///
    /// - Throws: ``PagerError/configuration(_:)``.
    func check(_ features: UserfaultFD.Features, _ owner: Owner) throws(PagerError) {
        func demand(_ condition: Bool, _ text: @autoclosure () -> String) throws(PagerError) {
            if !condition { throw .configuration(text()) }
        }
        try Self.check(handlers, 1...Self.maximumThreads, "handlers")
        try Self.check(shards, 1...Self.maximumThreads, "shards")
        try demand(
            shards == 1 || owner.isCurrent, "only memory of this process can be spread over several descriptors")
        try demand(
            waiting != .block || owner.isCurrent && features.isDisjoint(with: .events),
            "sleeping in read(2) is for memory of this process, without event features")
        try demand(
            state == nil || shards == 1 && !owner.isCurrent && !features.contains(.eventFork),
            "a state is for one descriptor of another process' memory, without event fork")
        switch service {
        case .workers(let count): try Self.check(count, 1...Self.maximumThreads, "workers")
        case .inline:
            try demand(
                !features.contains(.eventFork),
                "a descriptor that reports forks needs workers: its reader must not wait for a source")
        case .automatic, .inThread: break
        }
        let sendsSignals = features.contains(.sigbus)
        try demand(
            service != .inThread || sendsSignals,
            "serving in the thread that faults needs a descriptor with Features.sigbus")
        try demand(
            !sendsSignals || service == .inThread || service == .automatic,
            "a descriptor with Features.sigbus has no messages for other threads: its faults are served in their threads"
        )
        try demand(
            !sendsSignals || owner.isCurrent && features.isDisjoint(with: .events) && shards == 1,
            "serving in the thread that faults is for memory of this process, one descriptor, and no events")
        try demand(
            !sendsSignals || sourceTimeout == nil,
            "a source that is asked in the thread that faults cannot be left to itself: no time limit")
        try demand(!sendsSignals || strays.suitsSignalHandlers, StrayPolicy.refusalInThread)
        try demand(
            maximumChildren > 0 || !features.contains(.eventFork),
            "a descriptor that reports forks needs room for children")
        try demand(
            features.contains(.eventUnmap) || !features.contains(.eventRemap),
            "a descriptor that reports moves must report unmapping too: what was at a move's target is not known else")
        try Self.check(maximumChildren, 0...Self.maximumThreads, "children")
        if features.contains(.eventFork) {
            try Self.check(maximumChildren * shards, 1...Self.maximumThreads, "children, for each shard,")
        }
        try Self.check(workingSetCapacity, 0...Self.maximumRecords, "first touches")
        try Self.check(traceCapacity, 0...Self.maximumRecords, "traced faults")
        try demand(backgroundBytesPerSecond.map { $0 > 0 } ?? true, "a rate is more than nothing, or no limit")
        try demand(backgroundRequests > 0, "loading in the background needs at least one request")
        try demand(sourceTimeout.map { $0 > .zero } ?? true, "a source needs some time, or no limit")
        try demand(
            stuckAfter > .zero && watchdogInterval > .zero, "the watchdog needs some time between its rounds")
        try Self.check(processors)
    }

    /// The most threads of a kind, descriptors and children.
    static var maximumThreads: Int { 10_000 }
    /// The most that is recorded of a kind.
    private static var maximumRecords: Int { 1 << 32 }

    /// Finds a number that is out of its range.
    static func check(_ count: Int, _ range: ClosedRange<Int>, _ what: String) throws(PagerError) {
        guard range.contains(count) else {
            throw .configuration("the number of \(what) is \(range.lowerBound) to \(range.upperBound): \(count)")
        }
    }

    /// Finds processors that are not this process'.
    static func check(_ processors: [Int]) throws(PagerError) {
        let allowed = ProcessorSet()
        for processor in processors where !allowed.contains(processor) {
            throw .configuration("this process may not use processor \(processor), so that no thread can be kept there")
        }
    }
}
