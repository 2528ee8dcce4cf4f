internal import Synchronization
internal import UserfaultFD

// What became of the address space. Runs on the thread that reads the descriptor; in a rehearsal on the one that starts the
// pager, at the end on the one that stops it, and on the one that goes on in the place of another pager.

extension PagerCore where Source: ~Copyable {
    /// Takes in what happened to the address space, in the exclusion in which it was read.
    ///
    /// - Parameter spare: Room for messages of a child that is let go.
    func take(
        _ event: consuming Event, of memory: ServedMemory, _ machine: inout PagerStateMachine,
        _ uffd: borrowing UserfaultFD, _ spare: inout EventBatch
    ) throws(UserfaultError) {
        let wake: AddressRange?
        switch consume event {
        case .remove(let range): wake = try machine.apply(.remove(range))
        case .unmap(let range): wake = try machine.apply(.unmap(range))
        case .remap(let from, let to, let count):
            wake = try machine.apply(.remap(from: from, to: to, count: count))
            // A thread may have faulted there when what was there before was gone, and this not yet known.
            memory.releaseStrays(in: AddressRange(start: to, count: count))
        case .fork(let child):
            _ = adopt(child, of: memory, machine, &spare)
            return
        case .pagefault: return
        case .unknown: return
        }
        if let wake { try? uffd.wake(wake) }
    }

    /// Begins to serve a child, as its parent was served when it forked.
    ///
    /// - Returns: Its place, or `nil` if it was let go.
    func adopt(
        _ child: consuming UserfaultFD, of parent: ServedMemory, _ machine: borrowing PagerStateMachine,
        _ spare: inout EventBatch
    ) -> Int? {
        // It has the flags with which its parent's was opened, and not those that were set since.
        try? child.setNonBlocking(true)
        guard !isSealing.load(ordering: .sequentiallyConsistent), let slot = vacantSlot(for: parent) else {
            abandon(child, of: machine, &spare)
            return nil
        }
        do throws(UserfaultError) {
            let copy = try machine.copyForChild()
            // Before it is open: a child that cannot be read from must not count as served.
            if isRead.load(ordering: .relaxed) { try reader?.add(child, for: children[slot]) }
            children[slot].shard = parent.shard
            children[slot].open(child, copy)
            return slot
        } catch {
            abandon(child, of: machine, &spare)
            return nil
        }
    }

    /// A place for a child of a process, in the exclusion in which that is read of.
    ///
    /// Each shard tells of a fork by itself, and each has places for all children. Waits for no living child: other pagers of
    /// the runtime wait meanwhile.
    func vacantSlot(for parent: ServedMemory) -> Int? {
        var living = 0
        for slot in children.indices where children[slot].shard == parent.shard {
            if !children[slot].isVacant && !children[slot].hasEnded { living += 1 }
        }
        if living < configuration.maximumChildren, let slot = firstVacant { return slot }
        // Nobody tells when a child ends.
        for slot in children.indices where children[slot] !== parent && children[slot].beginUse() {
            if children[slot].probeEndAlone() {
                if !children[slot].hasEnded, children[slot].shard == parent.shard { living -= 1 }
                children[slot].noteEnd()
            }
            children[slot].endUse()
        }
        closeEndedChildren()
        return living < configuration.maximumChildren ? firstVacant : nil
    }

    // By number: an iterator of objects takes memory, unless it is optimised.
    private var firstVacant: Int? {
        for slot in children.indices where children[slot].isVacant { return slot }
        return nil
    }

    /// Lets a child go that cannot be served: what it does not have is poisoned, never zeros.
    private func abandon(
        _ child: consuming UserfaultFD, of machine: borrowing PagerStateMachine, _ spare: inout EventBatch
    ) {
        note(.forkLost)
        guard canPoison else { return _ = child.release() }
        var poisoned = 0
        for _ in 0..<1000 {
            // The states are those of the parent's pages.
            switch poisonUnfilled(of: machine, in: child, nil, isNoted: false, count: &poisoned) {
            case .done: return
            // The child changes its memory and waits for us to read of it.
            case .changing:
                _ = try? child.read(into: &spare)
                // Where its memory has gone, this does not know.
                if letGo(&spare) { return _ = child.release() }
            // What could not be poisoned once cannot be poisoned the next time.
            default: return _ = child.release()
            }
        }
        // As long as the descriptor is open, nobody is shown zeros: who touches these pages waits for ever.
        _ = child.release()
    }

    /// Passes over events that nobody can take in.
    ///
    /// - Returns: Whether memory was moved.
    func letGo(_ batch: inout EventBatch) -> Bool {
        var hasMoved = false
        while let event = batch.next() {
            switch consume event {
            case .fork(let child):
                note(.forkLost)
                // Kept open, as above.
                _ = child.release()
            case .remap: hasMoved = true
            case _: break
            }
        }
        return hasMoved
    }
}
