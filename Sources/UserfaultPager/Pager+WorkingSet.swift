internal import Synchronization
internal import UserfaultFD

extension Pager where Source: ~Copyable {
    /// The pages that were waited for so far, in order: at most ``PagerConfiguration/workingSetCapacity``.
    ///
    /// Its page size is the base page's; pages of huge regions count by where they begin.
    public var recordedWorkingSet: WorkingSet {
        WorkingSet(offsets: core.touches.offsets(), pageBytes: UInt32(PageSize.base.bytes))
    }

    /// Loads the pages of a recorded run, in its order, on a thread of its own, which gives way to faults.
    ///
    /// Pages that are there already, or in no region, are passed over. The thread ends by itself, or with the pager.
    ///
    /// - Throws: ``PagerError/noThread(_:)``, ``PagerError/notRunning``.
    public func replay(_ workingSet: WorkingSet) throws(PagerError) {
        try addThread("uffd-replay") { core in core.replay(workingSet) }
    }
}

extension PagerCore where Source: ~Copyable {
    /// Fills the pages of a working set, as long as the pager runs.
    func replay(_ workingSet: WorkingSet) {
        _ = try? withBench { (bench) throws(PagerError) in
            for offset in workingSet.offsets where !isStopping.load(ordering: .relaxed) {
                // Faults go first: this thread is in no hurry.
                while queue.count > 0, !isStopping.load(ordering: .relaxed) { pause(microseconds: 50) }
                forEachMemory { memory in prefetch(Int(clamping: offset), of: memory, with: &bench) }
                NativeThread.yield()
            }
        }
    }

    private func prefetch(_ offset: Int, of memory: ServedMemory, with bench: inout Workbench) {
        _ = fillUnasked(of: memory, with: &bench) { machine in
            machine.address(ofOffset: offset).flatMap { machine.claim(at: $0, count: 1) }
        }
    }
}
