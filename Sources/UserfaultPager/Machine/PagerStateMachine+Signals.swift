internal import UserfaultFD

// Why a thread got a signal. Runs in signal handlers of the threads that touch served memory.

/// Why a thread faulted that was sent a signal, as far as that is known: the kernel says where, and not why.
enum SignalCause {
    case nobodys, missing, protected
    /// Not every kernel tells poison from a page that is not there.
    case lost
}

extension PagerStateMachine {
    /// Why a thread got a signal at an address.
    @inline(__always)
    func cause(ofSignalAt address: UInt) -> SignalCause {
        guard let span = spans.find(address) else { return .nobodys }
        guard let states = span.states else { return .missing }
        let state = states[span.page(at: address)]
        if state.contains(.poisoned) { return .lost }
        // If it is not there after all, the thread comes back, and then it is known as not protected.
        return state.contains(.protected) && !state.contains(.claimed) ? .protected : .missing
    }
}
