import UserfaultFD

@testable import UserfaultPager

/// One descriptor: the kernel's side and the pager's, of a process or of its child.
struct ModelSide: ~Copyable {
    var kernel: ModelKernel
    var machine: PagerStateMachine
    let region: RegionReference
    var handlers: [ModelHandler]
    /// What an asynchronous source was asked for.
    var requests: [ModelHandler] = []
    let isAsynchronous: Bool
    /// Faults to be tried again by whoever takes them from the queue.
    var later: [UInt] = []
    /// Pages that the failure policy has given up since somebody asked.
    var lost: [Int] = []
    /// The child of a fork whose event was read.
    var born: PagerStateMachine?
    /// What the machine was before the last change.
    private var before: PagerStateMachine?
    private let remembers: Bool
    /// The states of all its pages, wherever they are.
    private let states: PageStates?
    private let pageCount: Int

    init(
        _ kernel: ModelKernel, _ machine: consuming PagerStateMachine, _ region: RegionReference,
        _ scenario: Model.Scenario, _ defect: ModelHandler.Defect?
    ) {
        self.kernel = kernel
        self.machine = machine
        self.region = region
        isAsynchronous = scenario.isAsynchronous
        remembers = defect == .forgetsWhatTheParentDropped
        var first: PageStates?
        var pages = 0
        for index in 0..<self.machine.spans.count {
            guard let states = self.machine.spans[index].states else { continue }
            // In order of their addresses, and so are the states of a region that has not moved, and of every child.
            first = first ?? states
            pages += self.machine.spans[index].range.count / ModelKernel.pageBytes
        }
        states = first
        pageCount = pages
        handlers = Array(
            repeating: ModelHandler(.handler, defect: defect, readAhead: scenario.readAhead), count: scenario.handlers)
        if scenario.populates { handlers.append(ModelHandler(.populate, defect: defect)) }
        if scenario.isAsynchronous, scenario.expires { handlers.append(ModelHandler(.watchdog, defect: defect)) }
    }

    // MARK: Steps

    /// Those that can take a step: handlers, then requests.
    func ready() -> [Int] {
        (0..<handlers.count + requests.count).filter { index in
            index < handlers.count ? handlers[index].canStep(self) : requests[index - handlers.count].canStep(self)
        }
    }

    mutating func step(_ index: Int, limit: Int) throws {
        if index < handlers.count {
            var handler = handlers[index]
            try handler.step(&self, limit: limit)
            later += handler.takeRetries()
            handlers[index] = handler
        } else {
            var request = requests[index - handlers.count]
            try request.step(&self, limit: limit)
            later += request.takeRetries()
            requests[index - handlers.count] = request
        }
        requests.removeAll(where: \.isFinished)
    }

    mutating func apply(_ change: Change) throws {
        if remembers { before = try machine.copyForChild() }
        if let wake = try machine.apply(change) { kernel.wake(wake) }
    }

    mutating func adopt(forgetsDropped: Bool) throws {
        born = forgetsDropped && before != nil ? before.take() : try machine.copyForChild()
    }

    mutating func noteLost(_ range: AddressRange) { lost.append(kernel.index(range.start)) }

    /// Ends the service: what is open is poisoned, then nothing is registered any more.
    ///
    /// - Returns: The pages that were poisoned, or `nil` if the program must go on first.
    mutating func end(passingOver passed: PageState) -> [Int]? {
        var poisoned: [Int] = []
        var address: UInt = 0
        while let run = machine.firstUnfilledRun(of: region, from: address, pages: 1, passingOver: passed) {
            switch kernel.fill(run.range, { _ in .poison }) {
            case .changing: return nil
            case .done:
                poisoned.append(kernel.index(run.range.start))
                run.states.update(0) { $0.union(.poisoned) }
            default: break
            }
            address = run.range.end
        }
        kernel.unregister()
        machine.forgetSpans(of: region)
        return poisoned
    }

    // MARK: What is so

    /// The first request that nobody has completed.
    var openRequest: Int? {
        requests.firstIndex { if case .request(.open) = $0.role { true } else { false } }
    }

    /// Whether a thread or a request has pages in hand, or something is to be tried again.
    var isBusy: Bool {
        kernel.gate > 0 || !later.isEmpty || !requests.isEmpty
            || handlers.contains { $0.claim != nil || !$0.later.isEmpty }
    }

    /// Whether nothing is left to do.
    var isFinished: Bool { later.isEmpty && requests.isEmpty && handlers.allSatisfy(\.isFinished) }

    /// Whether two have a page in hand, or it is marked so while nobody has it, or the other way round.
    func hasPageInWrongHands() -> Bool {
        guard let states else { return false }
        var held = 0
        for worker in handlers + requests {
            if case .request(.takenAway) = worker.role { continue }
            guard let claim = worker.claim, claim.states != nil else { continue }
            for page in 0..<claim.pages where !(claim.states(page)?[0].contains(.claimed) ?? true) { return true }
            held += claim.pages
        }
        return held != (0..<pageCount).count { states[$0].contains(.claimed) }
    }
}
