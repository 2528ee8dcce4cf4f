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
    func cause(ofSignalAt address: UInt) -> SignalCause {
        guard let span = spans.find(address) else { return .nobodys }
        return span.cause(ofSignalAt: address)
    }
}

extension Span {
    /// Why a thread got a signal at an address of the span.
    @inline(__always)
    func cause(ofSignalAt address: UInt) -> SignalCause {
        guard let states else { return .missing }
        let state = states[page(at: address)]
        if state.contains(.poisoned) { return .lost }
        // If it is not there after all, the thread comes back, and then it is known as not protected.
        return state.contains(.protected) && !state.contains(.claimed) ? .protected : .missing
    }

    /// What is to be done for a thread that got a signal on a page; `nil` to bring it.
    @inline(__always)
    func order(forSignalAt address: UInt, in page: AddressRange) -> Order? {
        switch cause(ofSignalAt: address) {
        case .missing: nil
        case .protected: .unprotect(page)
        case .nobodys, .lost: .refuse
        }
    }
}
