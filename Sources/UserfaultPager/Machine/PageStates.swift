internal import Synchronization

// The threads that serve faults all change page states; none of them waits here.

/// What the engine remembers of a page; ``FillMoments`` say when it was filled.
struct PageState: OptionSet, Hashable {
    let rawValue: UInt16

    /// The program dropped the page: it is zeros from now on, whatever the source says.
    static var removed: PageState { PageState(rawValue: 1 << 0) }
    /// A service has the page in hand, and will wake those who wait for it.
    static var claimed: PageState { PageState(rawValue: 1 << 1) }
    /// Another fault of a claimed page was read and left to the service that has it.
    static var awaited: PageState { PageState(rawValue: 1 << 2) }
    /// The page was filled: the source does not owe it any more.
    ///
    /// Whether it is there now, only the kernel knows: it may have been asked to drop it without a word to us.
    static var present: PageState { PageState(rawValue: 1 << 3) }
    /// Whoever touches the page gets `SIGBUS`.
    static var poisoned: PageState { PageState(rawValue: 1 << 4) }
    /// The page was written since it was filled or last asked for.
    static var written: PageState { PageState(rawValue: 1 << 5) }
    /// A thread faulted on the page after it was filled, and was told to look again.
    ///
    /// If it comes back, the page is gone.
    static var doubted: PageState { PageState(rawValue: 1 << 8) }
    /// The page is in the recorded working set.
    static var recorded: PageState { PageState(rawValue: 1 << 9) }
    /// The kernel tells of the next write: what is known of a page that no other descriptor protects.
    static var protected: PageState { PageState(rawValue: 1 << 10) }

    /// What is so for good, as opposed to what is happening to the page.
    static var lasting: PageState { decided.union(written).union(recorded) }
    /// Nothing is left to be done: closing the descriptor would show nobody zeros that are not the page's.
    ///
    /// By unions, here and elsewhere: a literal takes memory in programs that are not optimized, for which a fork may have to
    /// be waited for that waits for this thread's lock.
    static var decided: PageState { removed.union(present).union(poisoned) }
}

/// The states of neighbouring pages, in memory that somebody else owns.
///
/// Several threads may change one state; every change is a single atomic step.
@safe
struct PageStates: @unchecked Sendable, Equatable {
    private let first: UnsafeMutablePointer<Atomic<UInt16>>

    /// How much memory a page's state takes, in bytes.
    static var bytesPerPage: Int { 2 }

    /// How much memory the states of so many pages take, in bytes: what lies behind them is as aligned as they are.
    static func bytes(pages: Int) -> Int { (pages * bytesPerPage + 63) & ~63 }

    /// - Parameter memory: Zeroed memory, ``bytesPerPage`` for each page.
    @unsafe init(_ memory: UnsafeMutableRawPointer) {
        unsafe first = memory.assumingMemoryBound(to: Atomic<UInt16>.self)
    }

    /// The states from the page `count` after the first one on.
    func advanced(by count: Int) -> PageStates {
        unsafe PageStates(UnsafeMutableRawPointer(first + count))
    }

    /// How many pages these states lie after others.
    func distance(from other: PageStates) -> Int { unsafe first - other.first }

    static func == (lhs: PageStates, rhs: PageStates) -> Bool { unsafe lhs.first == rhs.first }

    /// Which page this is, among all pages with states.
    func identity(of index: Int) -> UInt { UInt(bitPattern: unsafe first + index) / UInt(Self.bytesPerPage) }

    subscript(index: Int) -> PageState { PageState(rawValue: unsafe first[index].load(ordering: .acquiring)) }

    /// Takes over the state of another page.
    func copy(_ state: PageState, to index: Int) {
        unsafe first[index].store(state.rawValue, ordering: .releasing)
    }

    /// Changes a state in one step.
    ///
    /// - Returns: What it was.
    @inline(__always)
    @discardableResult
    func update(_ index: Int, _ change: (PageState) -> PageState) -> PageState {
        var before = unsafe first[index].load(ordering: .relaxed)
        while true {
            let result = unsafe first[index].compareExchange(
                expected: before, desired: change(PageState(rawValue: before)).rawValue,
                ordering: .acquiringAndReleasing)
            if result.exchanged { return PageState(rawValue: before) }
            before = result.original
        }
    }

    /// Takes a page in hand; where another service has it, leaves it to that one.
    ///
    /// - Returns: What the state was: ``PageState/claimed`` is in it if the page was not to be had.
    @inline(__always)
    func claim(_ index: Int) -> PageState {
        update(index) { $0.union($0.contains(.claimed) ? .awaited : .claimed) }
    }

    /// Takes a page in hand of which nothing is known.
    func claimUntouched(_ index: Int) -> Bool {
        unsafe first[index].compareExchange(
            expected: 0, desired: PageState.claimed.rawValue, ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Takes a page in hand if no service has it.
    func claimUnlessClaimed(_ index: Int) -> Bool {
        !update(index) { $0.union(.claimed) }.contains(.claimed)
    }

    /// Gives a page back.
    ///
    /// - Returns: Whether faults were left to this service that nobody may have woken.
    @inline(__always)
    func release(_ index: Int, setting set: PageState = .init(), clearing cleared: PageState = .init()) -> Bool {
        update(index) { $0.subtracting(.claimed).subtracting(.awaited).subtracting(cleared).union(set) }.contains(
            .awaited)
    }

    /// Gives a page back whose fate is known.
    @inline(__always)
    func release(_ index: Int, as set: PageState) -> Bool {
        release(index, setting: set, clearing: .doubted)
    }
}
