import UserfaultFD

@testable import UserfaultPager

/// A handler thread, one step at a time: what happens in one exclusion of the real engine is one step here.
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
    }

    private enum Phase {
        case idle
        case fill(Claim, UInt)
        case wake(AddressRange, then: Claim?, UInt)
        case apply(Change)
    }

    private var phase = Phase.idle
    private var faults: [UInt] = []
    private var late: [Change] = []
    private(set) var later: [UInt] = []
    let defect: Defect?
    let readAhead: Int

    init(defect: Defect?, readAhead: Int) {
        self.defect = defect
        self.readAhead = readAhead
    }

    var isIdle: Bool {
        if case .idle = phase { return faults.isEmpty && late.isEmpty }
        return false
    }

    /// Whether a step would get anywhere: a retry behind a raised gate would not.
    func canStep(_ kernel: ModelKernel) -> Bool {
        !isIdle || kernel.hasMessages || (!later.isEmpty && kernel.gate == 0)
    }

    /// One step.
    ///
    /// `limit` is how many messages one reading takes.
    mutating func step(
        _ kernel: inout ModelKernel, _ machine: inout PagerStateMachine, limit: Int
    ) throws {
        switch phase {
        case .idle where !faults.isEmpty:
            begin(faults.removeFirst(), &kernel, machine)
        case .idle where !late.isEmpty:
            phase = .apply(late.removeFirst())
        case .idle:
            faults = later
            later = []
            for message in kernel.read(limit: limit) {
                switch message {
                case .fault(let address): faults.append(address)
                case .change(let change, _) where defect == .eventsAfterFaults: late.append(change)
                case .change(let change, _): try apply(change, &kernel, &machine)
                }
            }
        case .apply(let change):
            phase = .idle
            try apply(change, &kernel, &machine)
        case .fill(let claim, let address):
            fill(claim, address, &kernel, machine)
        case .wake(let range, let rest, let address):
            kernel.wake(range)
            phase = rest.map { .fill($0, address) } ?? .idle
        }
    }

    private func apply(
        _ change: Change, _ kernel: inout ModelKernel, _ machine: inout PagerStateMachine
    ) throws {
        if let wake = try machine.apply(change) { kernel.wake(wake) }
    }

    private mutating func begin(
        _ address: UInt, _ kernel: inout ModelKernel, _ machine: borrowing PagerStateMachine
    ) {
        phase = .idle
        switch machine.begin(PageFault(address: address, flags: []), readAt: .max) {
        case .fill(var claim):
            if claim.content == .source { machine.extend(&claim, by: readAhead) }
            // Loading takes its time: until the next step of this thread, others may take any number of theirs.
            phase = .fill(claim, address)
        case .leave, .unprotect, .hold: break
        case .wake(let range): phase = .wake(range, then: nil, address)
        case .stray(let range):
            switch kernel.fill(range, { _ in .poison }) {
            case .changing: later.append(address)
            case .exists, .noRange: phase = .wake(range, then: nil, address)
            default: break
            }
        }
    }

    private mutating func fill(
        _ claim: Claim, _ address: UInt, _ kernel: inout ModelKernel, _ machine: borrowing PagerStateMachine
    ) {
        phase = .idle
        guard machine.isCurrent(claim) || defect == .fillsWhatHasChanged else {
            later.append(address)
            if let wake = machine.giveBack(claim) { phase = .wake(wake, then: nil, address) }
            return
        }
        let outcome = kernel.fill(claim.range) { page in
            claim.content == .zeros ? .word(0) : .word(Model.word(claim.offset + page * ModelKernel.pageBytes))
        }
        if defect == .changingIsDone, outcome == .changing {
            _ = machine.settle(claim, .done, at: 0)
            return
        }
        let settlement = machine.settle(claim, outcome, at: 0)
        var wake = settlement.wake
        if defect == .noWakeAfterExists, outcome == .exists { wake = nil }
        if defect == .forgetsTheAwaited, outcome != .exists, outcome != .noRange { wake = nil }
        var rest: Claim?
        switch settlement.next {
        case .fill(let claim): rest = claim
        case .again: later.append(address)
        case .finished, .gone, .held, .ended, .failed: break
        }
        if let wake {
            phase = .wake(wake, then: rest, address)
        } else if let rest {
            phase = .fill(rest, address)
        }
    }
}
