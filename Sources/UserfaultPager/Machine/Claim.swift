internal import UserfaultFD

/// Pages that one service has in hand: to be given back in every case.
struct Claim {
    /// Where what fills them comes from.
    enum Content: Hashable {
        /// The source.
        case source
        /// Nowhere: they are zeros.
        case zeros
        /// The file that is mapped, which has them.
        case file
        /// They are lost.
        case poison
    }

    /// The pages.
    var range: AddressRange
    /// The state of the first page, where the pages have states.
    var states: PageStates?
    let region: RegionReference
    /// Where the first page begins in the source, in bytes.
    var offset: Int
    var content: Content
    /// Whether a thread waits for the first page, so that the service must not end before it is woken.
    var isAwaited: Bool
    /// How many changes of the address space had been applied when this was looked up.
    var changes: UInt64

    var pages: Int { range.count &>> region.pageShift }

    /// What its pages are once they are filled.
    var filledState: PageState { content == .poison ? .poisoned : presentState }

    /// Of pages that are there: a thread that faults on one nevertheless was held up by its protection.
    var presentState: PageState { region.writeProtected ? .present.union(.protected) : .present }

    /// How far its pages are filled or lost, from the first one on.
    var decidedBytes: Int {
        guard let states else { return range.count }
        let decided = (0..<pages).prefix { !states[$0].isDisjoint(with: .decided) }
        return decided.count << region.pageShift
    }

    /// The state of one of the pages.
    func states(_ page: Int) -> PageStates? { states?.advanced(by: page) }

    /// What is left behind the first `count` bytes: nobody is known to wait for that.
    func dropFirst(_ count: Int) -> Claim {
        var rest = self
        rest.range = range.dropFirst(count)
        rest.states = states?.advanced(by: count >> region.pageShift)
        rest.offset += count
        rest.isAwaited = isAwaited && count == 0
        return rest
    }

    /// The first pages alone.
    func prefix(pages: Int) -> Claim {
        var first = self
        first.range = range.part(at: 0, count: pages << region.pageShift)
        return first
    }
}

/// What is to be done for a fault.
enum Order {
    /// Load the pages and fill them in.
    case fill(Claim)
    /// Remove the protection of a page, and note that it is written.
    case unprotect(AddressRange)
    /// Nothing before the end of a pause.
    case hold
    /// Nothing: another service has the page in hand and will wake this thread too.
    case leave
    /// The page was filled before: let the thread look again.
    case wake(AddressRange)
    /// Nobody knows the address: fail closed.
    case stray(AddressRange)
    /// Nothing can be done for a thread that got a signal here.
    case refuse
}

/// How the kernel answered to a fill.
enum FillOutcome: Hashable {
    /// All of it.
    case done
    /// So many bytes, more than none; nobody behind them was woken.
    case stopped(after: Int)
    /// The first page is there already; nobody was woken.
    case exists
    /// An event is on its way.
    case changing
    /// Nothing registered is mapped there, or more than one mapping.
    case noRange
    /// The mapped file does not have the page.
    case noPage
    case processGone
    /// Anything else: the failure policy's.
    case failed
}

/// What follows from an answer of the kernel.
struct Settlement {
    enum Next {
        /// The service is over.
        case finished
        /// The service is over: the page is not mapped any more.
        case gone
        /// Fill these, which are still in hand.
        case fill(Claim)
        /// The pages are given back: read events, then begin anew.
        case again
        /// The pages are given back until the end of a pause.
        case held
        /// Nobody is there any more.
        case ended
        /// The page is still in hand: ask the failure policy.
        case failed(Claim)
    }

    /// Whom to wake first.
    var wake: AddressRange?
    var next: Next
}
