extension Pager where Source: ~Copyable {
    /// What was done so far; nothing in a child of the process' `fork`.
    public var statistics: PagerStatistics { core.isOurs ? core.statistics : PagerStatistics() }

    /// What was done so far for one region: numbers of faults and pages.
    ///
    /// What no region has is in ``statistics`` alone: events, stray faults, faults that are being served or wait, and the
    /// histograms of times. Pages that were poisoned at the end of the service are there alone as well.
    ///
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/otherProcess``.
    public func statistics(of region: Region) throws(PagerError) -> PagerStatistics {
        guard core.isOurs else { throw .otherProcess }
        let found = try core.withRegion(region) { (reference) throws(PagerError) -> PagerStatistics in
            var statistics = PagerStatistics()
            statistics.add(reference.counters.sum)
            return statistics
        }
        guard let found else { throw .noSuchRegion }
        return found
    }

    /// How many bytes were not loaded yet: what ``populateAll(within:)`` and a stop that populates have left to do.
    ///
    /// Pages that were poisoned, or that the program dropped, do not count. Pages that were unmapped do, unless the descriptor
    /// has `UserfaultFD.Features.eventUnmap`: a populate passes over them, and they are left when it is done. So progress ends
    /// when ``populateAll(within:)`` returns, and not only at 0. This looks at the state of every page, and may be called
    /// while the pager stops.
    ///
    /// - Throws: ``PagerError/notRunning`` if the pager was stopped; ``PagerError/otherProcess``.
    public func countUnfilledBytes() throws(PagerError) -> Int {
        try core.whileOpen { () throws(PagerError) in try core.countUnfilledBytes() }
    }

    /// The faults that were served last, the oldest first: at most ``PagerConfiguration/traceCapacity``.
    ///
    /// May be read while the pager runs, which holds up no fault. To follow a pager, ask for what came after the last one
    /// that was seen: a number that is missing was overwritten before it was read, or is being written.
    ///
    /// - Parameter number: Only faults with a larger ``TracedFault/number``.
    public func tracedFaults(after number: UInt64 = 0) -> [TracedFault] {
        core.trace.faults(after: number)
    }
}
