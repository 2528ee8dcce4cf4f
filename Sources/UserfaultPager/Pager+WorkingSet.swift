internal import Synchronization
internal import UserfaultFD

extension Pager where Source: ~Copyable {
    /// The pages that were waited for so far, in order: at most ``PagerConfiguration/workingSetCapacity``.
    ///
    /// Its page size is the base page's; pages of huge regions count by where they begin.
    public var recordedWorkingSet: WorkingSet {
        WorkingSet(offsets: core.touches.offsets(), pageBytes: UInt32(PageSize.base.bytes))
    }

    /// Loads the pages of a recorded run, in its order, in the background: faults go first.
    ///
    /// Pages that are there already, or in no region, are passed over. If several regions have the same pages of the source,
    /// each gets them. Ends by itself, or with the pager.
    ///
    /// - Throws: ``PagerError/badPageSize(_:)`` and ``PagerError/badOffset(_:)`` for what is no list of whole pages;
    ///   ``PagerError/noThread(_:)``, ``PagerError/notRunning``.
    public func replay(_ workingSet: WorkingSet) throws(PagerError) {
        try workingSet.check()
        try prefetch(workingSet.runs, of: nil)
    }

    /// Loads pages of a region in the background: faults go first.
    ///
    /// Pages that are there already are passed over. Ends by itself, or with the pager.
    ///
    /// - Parameters:
    ///   - region: The region.
    ///   - offset: Where the pages begin in it, in bytes.
    ///   - count: How many bytes.
    /// - Throws: ``PagerError/noSuchRegion``, ``PagerError/noThread(_:)``, ``PagerError/notRunning``,
    ///   ``PagerError/otherProcess``.
    public func prefetch(_ region: Region, offset: Int = 0, count: Int) throws(PagerError) {
        guard core.isOurs else { throw .otherProcess }
        guard let entry = core.entry(of: region) else { throw .noSuchRegion }
        let from = max(0, min(offset, region.range.count))
        let run = Job.Run(offset: entry.offset + from, count: max(0, min(count, region.range.count - from)))
        let isThere: Void? = try core.withRegion(region) { (reference) throws(PagerError) in
            try prefetch([run], of: reference)
        }
        guard isThere != nil else { throw .noSuchRegion }
    }

    private func prefetch(_ runs: [Job.Run], of region: RegionReference?) throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in
            guard isRunning else { throw .notRunning }
            let job = core.queue.submit(.prefetch(runs, of: region), limit: core.backgroundLimit)
            do throws(PagerError) {
                try core.runtime.needLoaders()
            } catch {
                job.end()
                throw error
            }
        }
    }
}

extension WorkingSet {
    /// Pages that follow each other, together; of a list that was checked.
    var runs: [Job.Run] {
        let page = Int(pageBytes)
        var runs: [Job.Run] = []
        for offset in offsets {
            let offset = Int(clamping: offset)
            if let last = runs.last, last.offset + last.count == offset, last.count < 1 << 20 {
                runs[runs.count - 1].count += page
            } else {
                runs.append(Job.Run(offset: offset, count: page))
            }
        }
        return runs
    }
}
