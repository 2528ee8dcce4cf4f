internal import Synchronization
internal import UserfaultFD

/// What the thread reads with that stops a pager.
///
/// Made before: it must not allocate where a fork holds the heap's locks and waits until its event is read.
struct LastReading: ~Copyable {
    fileprivate var batch = EventBatch(capacity: 16)
    fileprivate var spare = EventBatch(capacity: 16)
}

// The end of a descriptor. Others may hold it too: a guardian, a client, the child of a fork. So it is not enough to
// close it.

extension PagerCore where Source: ~Copyable {
    /// From now on nothing is added, and children are let go.
    func beginFinishing() {
        exclusively { isFinishing.store(true, ordering: .sequentiallyConsistent) }
    }

    /// Leaves all memory behind as nobody's: what is still open is poisoned and not shown as zeros, and nothing is
    /// registered, so that nothing waits, or raises an event, any more.
    ///
    /// While the reading threads still read, where there are any; where there are none, it reads itself.
    func seal() {
        for memory in memories { seal(memory) }
        for child in children where child.beginUse() {
            seal(child)
            child.endUse()
        }
    }

    private func seal(_ memory: ServedMemory) {
        guard !memory.isVacant else { return }
        let deadline = MonotonicInstant.now.nanoseconds &+ 30_000_000_000
        while true {
            let isSealed = memory.excludingOthers { (uffd, machine) -> Bool in
                readTheRest(&machine, uffd)
                // Where the kernel cannot, all was loaded before.
                let rest = canPoison ? poisonUnfilled(of: machine, in: uffd) : .done
                if rest == .changing { return false }
                if rest == .failed { killOwner() }
                for index in 0..<machine.spans.count where machine.spans[index].region.id != Sentinel.regionID {
                    // The program may have unmapped it, which does as well.
                    try? uffd.unregister(machine.spans[index].range)
                    try? uffd.wake(machine.spans[index].range)
                }
                readTheRest(&machine, uffd)
                return true
            }
            if isSealed { return }
            // Its program has stopped within a change of its memory, or does not come to its end.
            if MonotonicInstant.now.nanoseconds > deadline { return killOwner() }
            pause(microseconds: 50)
        }
    }

    /// Takes in the events that nobody has read; who faults is woken by what follows.
    private func readTheRest(_ machine: inout PagerStateMachine, _ uffd: borrowing UserfaultFD) {
        guard !uffd.enabledFeatures.isDisjoint(with: .events) else { return }
        while let count = unsafe try? uffd.read(into: &lastReading.batch), count > 0 {
            while let event = unsafe lastReading.batch.next() {
                unsafe try? take(event, &machine, uffd, &lastReading.spare)
            }
        }
    }

    /// Poisons what was neither loaded nor dropped.
    ///
    /// - Returns: ``FillOutcome/done``; ``FillOutcome/changing`` where the program must first go on;
    ///   ``FillOutcome/failed`` where a page could not be poisoned.
    func poisonUnfilled(of machine: borrowing PagerStateMachine, in uffd: borrowing UserfaultFD) -> FillOutcome {
        var result = FillOutcome.done
        var address: UInt = 0
        while let page = machine.firstUnfilledPage(from: address) {
            switch FillOutcome({ () throws(UserfaultError) in try uffd.poison(page) }) {
            case .changing: return .changing
            case .processGone: return .done
            case .failed, .noPage: result = .failed
            case .done, .stopped, .exists, .noRange: break
            }
            address = page.end
        }
        return result
    }
}
