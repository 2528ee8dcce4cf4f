internal import Synchronization

/// What the engine remembers of a page: one byte.
struct PageState: OptionSet, Hashable {
    let rawValue: UInt8

    /// The program dropped the page: it is zeros from now on, whatever the source says.
    static var removed: PageState { PageState(rawValue: 1 << 0) }
    /// A service has the page in hand, and will wake those who wait for it.
    static var claimed: PageState { PageState(rawValue: 1 << 1) }
    /// Another fault of a claimed page was read and left to the service that has it.
    static var awaited: PageState { PageState(rawValue: 1 << 2) }
    /// The page was filled.
    ///
    /// A hint: the kernel may have been asked to drop it without a word to us.
    static var present: PageState { PageState(rawValue: 1 << 3) }
    /// Whoever touches the page gets `SIGBUS`.
    static var poisoned: PageState { PageState(rawValue: 1 << 4) }
    /// The page was written since it was filled or last asked for.
    static var written: PageState { PageState(rawValue: 1 << 5) }
    /// `EEXIST` was the last answer, once or twice: only huge pages count, because their pool may be what is empty.
    static var existedOnce: PageState { PageState(rawValue: 1 << 6) }
    static var existedTwice: PageState { PageState(rawValue: 1 << 7) }

    /// What is so for good, as opposed to what is happening to the page.
    static var lasting: PageState { [.removed, .present, .poisoned, .written] }
    /// Nothing is left to be done: closing the descriptor would show nobody zeros that are not the page's.
    static var decided: PageState { [.removed, .present, .poisoned] }
}

/// The states of neighbouring pages, in memory that somebody else owns.
///
/// Several threads may change one state; every change is a single atomic step.
@safe
struct PageStates: @unchecked Sendable, Equatable {
    private let first: UnsafeMutablePointer<Atomic<UInt8>>

    /// - Parameter memory: Zeroed memory, a byte for each page.
    @unsafe init(_ memory: UnsafeMutableRawPointer) {
        unsafe first = memory.assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// The states from the page `count` behind the first one on.
    func advanced(by count: Int) -> PageStates {
        unsafe PageStates(UnsafeMutableRawPointer(first + count))
    }

    /// How many pages these states lie behind others.
    func distance(from other: PageStates) -> Int { unsafe first - other.first }

    static func == (lhs: PageStates, rhs: PageStates) -> Bool { unsafe lhs.first == rhs.first }

    subscript(index: Int) -> PageState {
        PageState(rawValue: unsafe first[index].load(ordering: .acquiring))
    }

    /// Changes a state in one step, and answers what it was.
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
    /// - Returns: What the state was: ``PageState/claimed`` is in it where the page was not to be had.
    @inline(__always)
    func claim(_ index: Int) -> PageState {
        update(index) { $0.contains(.claimed) ? $0.union(.awaited) : $0.union(.claimed) }
    }

    /// Takes a page in hand that nobody has ever touched.
    func claimUntouched(_ index: Int) -> Bool {
        unsafe first[index].compareExchange(
            expected: 0, desired: PageState.claimed.rawValue, ordering: .acquiringAndReleasing
        ).exchanged
    }

    /// Takes a page in hand where no service has it.
    func claimUnlessClaimed(_ index: Int) -> Bool {
        !update(index) { $0.union(.claimed) }.contains(.claimed)
    }

    /// Gives a page back.
    ///
    /// - Returns: Whether faults were left to this service that nobody may have woken.
    @inline(__always)
    func release(_ index: Int, setting set: PageState = [], clearing cleared: PageState = []) -> Bool {
        update(index) { $0.subtracting([.claimed, .awaited]).subtracting(cleared).union(set) }.contains(.awaited)
    }
}
