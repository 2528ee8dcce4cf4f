internal import Synchronization
internal import UserfaultFD

extension PagerCore where Source: ~Copyable {
    /// Takes in what happened to the address space, in the exclusion in which it was read.
    ///
    /// - Parameter spare: Room for messages of a child that is let go.
    func take(
        _ event: consuming Event, _ machine: inout PagerStateMachine, _ uffd: borrowing UserfaultFD,
        _ spare: inout EventBatch
    ) throws(UserfaultError) {
        let wake: AddressRange?
        switch consume event {
        case .remove(let range): wake = try machine.apply(.remove(range))
        case .unmap(let range): wake = try machine.apply(.unmap(range))
        case .remap(let from, let to, let count): wake = try machine.apply(.remap(from: from, to: to, count: count))
        case .fork(let child): return adopt(child, of: machine, &spare)
        case .pagefault: return
        case .unknown: return
        }
        if let wake { try? uffd.wake(wake) }
    }

    /// Begins to serve a child, as its parent was served when it forked.
    func adopt(
        _ child: consuming UserfaultFD, of machine: borrowing PagerStateMachine, _ spare: inout EventBatch
    ) {
        guard !isFinishing.load(ordering: .sequentiallyConsistent), let slot = vacantSlot() else {
            return abandon(child, of: machine, &spare)
        }
        do throws(UserfaultError) {
            let copy = try machine.copyForChild()
            // Before it is open: a child that cannot be read from must not count as served.
            try pollSet.add(child, token: UInt64(memories.count + slot))
            children[slot].open(child, copy)
        } catch {
            abandon(child, of: machine, &spare)
        }
    }

    private func vacantSlot() -> Int? {
        if let slot = children.indices.first(where: { children[$0].isVacant }) { return slot }
        // Nobody tells when a child ends.
        for slot in children.indices where children[slot].beginUse() {
            if children[slot].probeEnd() { children[slot].noteEnd() }
            children[slot].endUse()
        }
        closeEndedChildren()
        return children.indices.first { children[$0].isVacant }
    }

    /// Lets a child go that cannot be served: what it does not have is poisoned, never zeros.
    private func abandon(
        _ child: consuming UserfaultFD, of machine: borrowing PagerStateMachine, _ spare: inout EventBatch
    ) {
        note(.forkLost)
        for _ in 0..<1000 {
            switch poisonUnfilled(of: machine, in: child) {
            case .done: return
            // The child changes its memory and waits for us to read of it.
            case .changing: _ = try? child.read(into: &spare)
            default: break
            }
        }
        // As long as the descriptor is open, nobody is shown zeros: who touches these pages waits for ever.
        _ = child.release()
    }
}
