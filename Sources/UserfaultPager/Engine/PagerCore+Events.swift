internal import CUserfaultFD
internal import Synchronization
internal import UserfaultFD

extension PagerCore where Source: ~Copyable {
    /// Takes in what happened to the address space, in the exclusion in which it was read.
    func take(
        _ event: consuming Event, _ machine: inout PagerStateMachine, _ uffd: borrowing UserfaultFD
    ) throws(UserfaultError) {
        let wake: AddressRange?
        switch consume event {
        case .remove(let range): wake = try machine.apply(.remove(range))
        case .unmap(let range): wake = try machine.apply(.unmap(range))
        case .remap(let from, let to, let count): wake = try machine.apply(.remap(from: from, to: to, count: count))
        case .fork(let child): return adopt(child, of: machine)
        case .pagefault: return
        case .unknown: return
        }
        if let wake { try? uffd.wake(wake) }
    }

    /// Begins to serve a child, as its parent was served when it forked.
    func adopt(_ child: consuming UserfaultFD, of machine: borrowing PagerStateMachine) {
        guard !isFinishing.load(ordering: .sequentiallyConsistent),
            let slot = children.indices.first(where: { children[$0].isVacant })
        else { return abandon(child, of: machine) }
        do throws(UserfaultError) {
            let copy = try machine.copyForChild()
            children[slot].open(child, copy)
            _ = cuffd_epoll_add(epoll, children[slot].rawDescriptor, UInt64(memories.count + slot), 0)
        } catch {
            abandon(child, of: machine)
        }
    }

    /// Lets a child go that cannot be served: what it does not have is poisoned, never zeros.
    private func abandon(_ child: consuming UserfaultFD, of machine: borrowing PagerStateMachine) {
        var address: UInt = 0
        var attempts = 0
        while let page = machine.firstUnfilledPage(from: address) {
            let outcome = FillOutcome { () throws(UserfaultError) in _ = try child.poison(page) }
            if outcome == .changing, attempts < 1000 {
                // The child changes its memory and waits for us to read of it.
                attempts += 1
                _ = unsafe try? child.read(into: &scratch)
            } else {
                address = page.end
            }
        }
        note(.forkLost)
    }
}
