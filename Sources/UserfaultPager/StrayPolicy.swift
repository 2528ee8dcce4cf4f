/// What happens to faults at addresses of no region.
///
/// Memory that adjoins a region in one mapping is no stray: a mapping that grows, by `mremap(2)` or as a stack, takes its
/// region along. What was not there before is zeros. Only ``wait`` and ``ask(_:)`` come first, because with them the
/// memory may be that of a region which is added later.
///
/// Faults on write-protected pages are no strays either: the protection is removed.
///
/// With ``PagerConfiguration/Service/inThread``, a pager refuses ``wait`` and ``ask(_:)``: in a signal handler a thread can
/// do neither.
public struct StrayPolicy: Sendable {
    /// What happens to one fault.
    public enum Answer: Hashable, Sendable {
        /// The thread waits until a region with its page is added, or another policy is set.
        ///
        /// When the pager stops, the page is poisoned. At most 4,000 pages are waited for; further ones are poisoned.
        case wait

        /// The page is zeros. Right only for memory without other content.
        case zeros

        /// Whoever touches the page gets `SIGBUS`.
        case poison

        /// The process whose memory it is gets `SIGKILL`.
        case killOwner
    }

    enum Choice {
        case always(Answer)
        case ask(@Sendable (StrayFault) -> Answer)
    }

    let choice: Choice

    /// See ``Answer/wait``.
    public static var wait: StrayPolicy { StrayPolicy(choice: .always(.wait)) }

    /// See ``Answer/zeros``.
    public static var zeros: StrayPolicy { StrayPolicy(choice: .always(.zeros)) }

    /// See ``Answer/poison``.
    public static var poison: StrayPolicy { StrayPolicy(choice: .always(.poison)) }

    /// See ``Answer/killOwner``.
    public static var killOwner: StrayPolicy { StrayPolicy(choice: .always(.killOwner)) }

    /// Whether a thread can follow it in a handler of its own signal: there it can neither wait for another's call nor
    /// call what is not made for it.
    var suitsSignalHandlers: Bool {
        if case .always(let answer) = choice { return answer != .wait }
        return false
    }

    /// Whether it does or says what cannot be taken back: a fault that turns out to be no stray must not meet it.
    var isFinal: Bool {
        switch choice {
        case .always(.killOwner), .ask: true
        case .always: false
        }
    }

    static var refusalInThread: String {
        "a thread that serves its own faults can neither wait for a region nor ask about it: zeros, poison or killOwner"
    }

    /// Asks about each fault.
    ///
    /// - Parameter body: Is called on threads that serve faults, several at once: it must neither wait nor touch memory
    ///   that the pager serves. It may add a region and answer ``Answer/wait``.
    public static func ask(_ body: @escaping @Sendable (StrayFault) -> Answer) -> StrayPolicy {
        StrayPolicy(choice: .ask(body))
    }
}

/// A fault at an address of no region.
public struct StrayFault: Hashable, Sendable {
    /// The address that was touched, rounded down to its page unless the descriptor reports exact addresses.
    public let address: UInt

    /// Whether a thread wanted to write.
    public let isWrite: Bool

    /// Whether the page lies in one mapping with a region, which may have grown.
    public let adjoinsRegion: Bool
}
