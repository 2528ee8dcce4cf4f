internal import CUserfaultFD

/// `SIGBUS` of a thread that touches memory of a descriptor with ``UserfaultFD/Features/sigbus``.
package enum FaultSignal {
    /// What became of a fault.
    package enum Answer: Int32 {
        /// Nobody here has this address: what `SIGBUS` did before happens, if the thread faults there again and nothing was
        /// given up between.
        case unclaimed
        /// The thread goes on.
        case served
        /// What `SIGBUS` did before happens.
        case refused
    }

    /// Has faults served by a function, in the thread that faults; once in a process.
    ///
    /// It runs in a signal handler, and may neither take memory nor a lock that a thread has while signals can
    /// interrupt it, see ``BlockedSignals``.
    ///
    /// - Parameters:
    ///   - serve: Gets the address; answers a raw ``Answer``.
    ///   - forget: Is called in the child of a fork, which has none of the memory.
    package static func install(
        serve: @convention(c) (UInt64) -> Int32, forget: @convention(c) () -> Void
    ) throws(UserfaultError) {
        _ = try answer(to: .handleSignal) { cuffd_fault_signal_install(serve, forget) }
    }

    /// Calls on a thread that did not fault what serves a fault: a `SIGBUS` of an instruction of it, which is not served, ends
    /// the process, as it does where a fault is served.
    package static func serving<Result>(_ body: () -> Result) -> Result {
        cuffd_fault_signal_begin_serving()
        defer { cuffd_fault_signal_end_serving() }
        return body()
    }

    /// Writes a text to the standard error, as far as that takes it: an error that is thrown takes memory.
    package static func complain(_ text: StaticString) {
        unsafe cuffd_complain(text.utf8Start, text.utf8CodeUnitCount)
    }

    /// Says that memory is about to be given up: who has faulted there already may find nobody.
    ///
    /// Not to be called for each fault: those that are nobody's would then be asked again for ever.
    package static func noteChange() { cuffd_fault_signal_note_change() }

    /// Tells the calling thread from all others that live.
    package static var threadToken: UInt { cuffd_thread_token() }

    /// Whether the calling thread may have had another fault served when this one came: `false` is certain.
    package static var mayBeNested: Bool { cuffd_fault_signal_may_be_nested() != 0 }
}

/// Times in which no signal that others can send interrupts the calling thread, and nobody cancels it.
///
/// For locks that a handler of the program's could need: one that touches served memory has the fault served in its
/// thread.
package enum BlockedSignals {
    /// Calls with signals blocked; calls nest.
    ///
    /// - Parameter isNeeded: Whether to block them at all.
    @inlinable
    package static func during<Result: ~Copyable, Failure: Error>(
        if isNeeded: Bool = true, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        guard isNeeded else { return try body() }
        let mask = block()
        defer { restore(mask) }
        return try body()
    }

    @usableFromInline
    package static func block() -> UInt64 { cuffd_signals_block() }

    @usableFromInline
    package static func restore(_ mask: UInt64) { cuffd_signals_restore(mask) }
}
