import UserfaultFD

@testable import UserfaultPager

/// A thread of the engine, or a request of its source, one step at a time: what happens in one exclusion of the real
/// engine is one step here.
struct ModelHandler {
    /// Breaks the engine where a test wants to see it caught.
    enum Defect: CaseIterable {
        /// `EEXIST` without a wake.
        case noWakeAfterExists
        /// Nobody looks whether what was loaded is still wanted.
        case fillsWhatHasChanged
        /// `EAGAIN` counts as done.
        case changingIsDone
        /// What others left to this service is forgotten.
        case forgetsTheAwaited
        /// Events behind the faults of the same reading.
        case eventsAfterFaults
        /// A request that took too long is completed all the same.
        case lateAnswersCount
        /// The end of a service poisons only what nobody has in hand.
        case endsPastWhatIsInHand
        /// A child knows of its pages what the parent knew before the changes that were read with the fork.
        case forgetsWhatTheParentDropped
        /// What is in hand when a region is populated counts as there.
        case populatesPastWhatIsInHand
    }

    enum Role {
        /// Reads faults and events, and serves.
        case handler
        /// Fills what no thread waits for.
        case populate
        /// Something that the source was asked for.
        case request(Progress)
        /// Fails a request that takes too long.
        case watchdog
    }

    enum Progress {
        case open, settling, takenAway
    }

    private enum Phase {
        case idle
        case fill(Claim, UInt)
        case fail(Claim, UInt)
        case wake(AddressRange, then: Claim?, UInt)
        case apply(Change)
    }

    private var phase = Phase.idle
    private var faults: [UInt] = []
    private var late: [Change] = []
    private(set) var later: [UInt] = []
    private(set) var role: Role
    let defect: Defect?
    private let readAhead: Int

    // Of a populate alone.
    private var cursor: UInt = 0
    private var isDirty = false
    /// Whether it begins another pass, once all is done that was under way.
    private var isWaiting = false
    private var changes: UInt64?
    private var isDone = false

    init(_ role: Role, defect: Defect?, readAhead: Int = 0) {
        self.role = role
        self.defect = defect
        self.readAhead = readAhead
    }

    init(requesting claim: Claim, for address: UInt, defect: Defect?) {
        self.init(.request(.open), defect: defect)
        phase = .fill(claim, address)
    }

    private var isIdle: Bool {
        if case .idle = phase { return faults.isEmpty && late.isEmpty }
        return false
    }

    /// The pages that it has in hand.
    var claim: Claim? {
        switch phase {
        case .fill(let claim, _), .fail(let claim, _), .wake(_, then: .some(let claim), _): claim
        case .idle, .wake, .apply: nil
        }
    }

    /// Whether all was done that is its own to do.
    var isFinished: Bool {
        switch role {
        case .handler, .watchdog: later.isEmpty
        case .populate: isDone
        case .request: isIdle && later.isEmpty
        }
    }

    /// Whether a step would get anywhere: a retry behind a raised gate would not.
    func canStep(_ side: borrowing ModelSide) -> Bool {
        if !isIdle { return true }
        switch role {
        case .handler:
            return side.kernel.hasMessages || (side.kernel.gate == 0 && !(later.isEmpty && side.later.isEmpty))
        case .populate: return !isDone && !(isWaiting && side.isBusy)
        case .watchdog: return side.openRequest != nil
        case .request: return false
        }
    }

    /// One step.
    ///
    /// `limit` is how many messages one reading takes.
    mutating func step(_ side: inout ModelSide, limit: Int) throws {
        switch phase {
        case .idle where !faults.isEmpty: begin(faults.removeFirst(), &side)
        case .idle where !late.isEmpty: phase = .apply(late.removeFirst())
        case .idle:
            switch role {
            case .handler: try read(&side, limit: limit)
            case .populate: takeUnfilled(side)
            case .watchdog: takeRequest(&side)
            case .request: break
            }
        case .apply(let change):
            phase = .idle
            try side.apply(change)
        case .fill(let claim, let address):
            switch role {
            case .request(.takenAway) where defect != .lateAnswersCount: phase = .idle
            case .request:
                role = .request(.settling)
                fill(claim, address, &side)
            case .handler, .populate, .watchdog: fill(claim, address, &side)
            }
        case .fail(let claim, let address): fail(claim, address, &side)
        case .wake(let range, let rest, let address):
            side.kernel.wake(range)
            phase = rest.map { .fill($0, address) } ?? .idle
        }
    }

    private mutating func read(_ side: inout ModelSide, limit: Int) throws {
        faults = later + side.later
        later = []
        side.later = []
        for message in side.kernel.read(limit: limit) {
            switch message {
            case .fault(let address): faults.append(address)
            case .change(let change, _) where defect == .eventsAfterFaults: late.append(change)
            case .change(let change, _): try side.apply(change)
            case .fork: try side.adopt(forgetsDropped: defect == .forgetsWhatTheParentDropped)
            }
        }
    }

    // MARK: Faults

    private mutating func begin(_ address: UInt, _ side: inout ModelSide) {
        phase = .idle
        switch side.machine.begin(PageFault(address: address, flags: []), readAt: .max) {
        case .fill(var claim):
            if claim.content == .source { side.machine.extend(&claim, by: readAhead) }
            if side.isAsynchronous, claim.content == .source {
                side.requests.append(ModelHandler(requesting: claim, for: address, defect: defect))
            } else {
                // Loading takes its time: until the next step of this thread, others may take any number of theirs.
                phase = .fill(claim, address)
            }
        case .leave, .unprotect, .hold, .refuse: break
        case .wake(let range): phase = .wake(range, then: nil, address)
        case .stray(let range):
            switch side.kernel.fill(range, { _ in .poison }) {
            case .changing: later.append(address)
            case .exists, .noRange: phase = .wake(range, then: nil, address)
            default: break
            }
        }
    }

    private mutating func fill(_ claim: Claim, _ address: UInt, _ side: inout ModelSide) {
        phase = .idle
        guard side.machine.isCurrent(claim) || defect == .fillsWhatHasChanged else {
            again(address)
            if let wake = side.machine.giveBack(claim) { phase = .wake(wake, then: nil, address) }
            return
        }
        let outcome = side.kernel.fill(claim.range) { page in
            claim.content == .zeros ? .word(0) : .word(Model.word(claim.offset + page * ModelKernel.pageBytes))
        }
        if defect == .changingIsDone, outcome == .changing {
            _ = side.machine.settle(claim, .done, at: 0)
            return
        }
        let settlement = side.machine.settle(claim, outcome, at: 0)
        var wake = settlement.wake
        if defect == .noWakeAfterExists, outcome == .exists { wake = nil }
        if defect == .forgetsTheAwaited, outcome != .exists, outcome != .noRange { wake = nil }
        follow(settlement.next, wake: wake, address)
    }

    private mutating func follow(_ next: Settlement.Next, wake: AddressRange?, _ address: UInt) {
        var rest: Claim?
        switch next {
        case .fill(let claim): rest = claim
        case .again: again(address)
        case .finished, .gone, .held, .ended, .failed: break
        }
        if let wake {
            phase = .wake(wake, then: rest, address)
        } else {
            phase = rest.map { .fill($0, address) } ?? .idle
        }
    }

    /// What is tried again: by the handler itself, by whoever takes it from the queue, by the next pass of a populate.
    private mutating func again(_ address: UInt) {
        if case .populate = role { isDirty = true } else { later.append(address) }
    }

    /// Leaves retries to the queue, where it is not a handler that has them.
    mutating func takeRetries() -> [UInt] {
        if case .handler = role { return [] }
        defer { later = [] }
        return later
    }

    // MARK: Requests that take too long

    private mutating func takeRequest(_ side: inout ModelSide) {
        guard let index = side.openRequest, let claim = side.requests[index].claim else { return }
        side.requests[index].role = .request(.takenAway)
        let first = claim.prefix(pages: 1)
        let rest = claim.dropFirst(first.range.count)
        phase = .fail(first, first.range.start)
        if !rest.range.isEmpty, let wake = side.machine.giveBack(rest) { side.kernel.wake(wake) }
    }

    private mutating func fail(_ claim: Claim, _ address: UInt, _ side: inout ModelSide) {
        phase = .idle
        guard side.machine.isCurrent(claim) else {
            again(address)
            if let wake = side.machine.giveBack(claim) { phase = .wake(wake, then: nil, address) }
            return
        }
        var lost = claim
        lost.content = .poison
        let outcome = side.kernel.fill(claim.range) { _ in .poison }
        if outcome == .done { side.noteLost(claim.range) }
        let settlement = side.machine.settle(lost, outcome, at: 0)
        follow(settlement.next, wake: settlement.wake, address)
    }

    // MARK: Populate

    private mutating func takeUnfilled(_ side: borrowing ModelSide) {
        isWaiting = false
        if changes == nil { changes = side.machine.changes }
        switch side.machine.claimUnfilled(of: side.region, from: cursor, count: 2) {
        case .claimed(let claim):
            cursor = claim.range.end
            phase = .fill(claim, claim.range.start)
        case .busy(let page):
            isDirty = defect != .populatesPastWhatIsInHand
            cursor = page &+ UInt(ModelKernel.pageBytes)
        case .none where isDirty || changes != side.machine.changes:
            cursor = 0
            isWaiting = true
            isDirty = false
            changes = side.machine.changes
        case .none:
            isDone = true
        }
    }
}
