internal import Synchronization
internal import UserfaultFD

/// What happens to pages that were not loaded when a region or a pager ends.
public enum Ending: Hashable, Sendable {
    /// Whoever touches them gets `SIGBUS`. Needs Linux 6.6.
    case poison
    /// They are loaded first.
    case populate
}

extension PagerCore where Source: ~Copyable {
    /// Leaves no page of a region to a later fault, on the calling thread.
    ///
    /// - Returns: How many pages could not be loaded.
    func finish(_ region: RegionReference, _ ending: Ending) throws(PagerError) -> Int {
        try withBench { (bench) throws(PagerError) -> Int in
            var failed = 0
            try forEachMemory { (memory) throws(PagerError) in
                failed += try finish(region, ending, of: memory, with: &bench)
            }
            return failed
        }
    }

    private func finish(
        _ region: RegionReference, _ ending: Ending, of memory: ServedMemory, with bench: inout Workbench
    ) throws(PagerError) -> Int {
        var failed = 0
        let most = max(1, Workbench.stagingBytes >> region.pageShift)
        var count = most
        var address: UInt = 0
        var changes = memory.sharingOrder { _, machine in machine.changes }
        var later = PendingFault(fault: PageFault(address: 0, flags: []), since: 0)
        while true {
            let found = memory.sharingOrder { _, machine in
                let found = machine.claimUnfilled(of: region, from: address, count: count)
                if case .claimed(let claim) = found {
                    bench.record.begin(claim.range.start, region: region.bits, since: MonotonicInstant.now.nanoseconds)
                }
                return found
            }
            switch found {
            case .none:
                // What moved meanwhile may be where this has passed already.
                let now = memory.sharingOrder { _, machine in machine.changes }
                guard now != changes else { return failed }
                changes = now
                address = 0
            case .busy(let page):
                address = page
                pause(microseconds: 50)
            case .claimed(var claim):
                address = claim.range.start
                if ending == .poison { claim.content = .poison }
                let served = fill(claim, for: later, of: memory, with: &bench)
                bench.record.end()
                switch served {
                case .done, .failed:
                    if case .failed = served, ending == .populate { failed += 1 }
                    later.failures = 0
                    count = most
                case .gone:
                    // Holes tend to be long: the source is not asked for more of them than there are.
                    address = claim.range.start &+ UInt(region.pageSize.bytes)
                    count = 1
                case .ended:
                    noteEnd(of: memory)
                    return failed
                case .later(let again):
                    later.failures = again.failures
                    pause(until: again.due)
                }
            }
        }
    }

    /// Lends the calling thread what a thread of the engine has.
    func withBench<Result>(
        _ body: (inout Workbench) throws(PagerError) -> Result
    ) throws(PagerError) -> Result {
        let record = makeRecord()
        enter(record)
        defer {
            leave(record)
            retire(record)
        }
        var bench = try asPagerError { () throws(UserfaultError) in try Workbench(record) }
        return try body(&bench)
    }

    /// Sleeps for a little, where nobody tells when to go on.
    func pause(microseconds: Int64) { pauseThread(for: .microseconds(microseconds)) }

    func pause(until due: UInt64) {
        let now = MonotonicInstant.now.nanoseconds
        pause(microseconds: due > now ? Int64((due - now) / 1000) + 1 : 50)
    }
}
