import UserfaultFD

@testable import UserfaultPager

/// A program, a kernel and a pager, of which one actor at a time takes one step; and the child of a fork of the program.
struct Model: ~Copyable {
    /// What a thread of the program does to its memory.
    enum Operation {
        case remove(pages: Range<Int>)
        case unmap(pages: Range<Int>)
        case move(pages: Range<Int>, to: Int, keepsOld: Bool)
        /// Another process puts the page there, which wakes nobody here: memory that is shared.
        case appear(page: Int)
        /// A child is made, which then reads pages.
        case fork(childReads: [Int])
        /// The service of the region ends: by `remove`, or because the pager stops.
        case end
    }

    struct Scenario {
        /// How many pages the source fills, and how many addresses there are behind them.
        var pages = 2
        var spare = 0
        /// What each thread reads, page by page.
        var touchers: [[Int]]
        var authors: [[Operation]] = []
        var handlers = 1
        var readAhead = 0
        /// Pages for which the source has nothing but zeros.
        var holes: Set<Int> = []
        /// How many messages one reading takes.
        var readLimit = 8
        /// Whether the source completes requests later, in any order.
        var isAsynchronous = false
        /// Whether requests may take too long.
        var expires = false
        /// Whether the region is populated meanwhile.
        var populates = false
    }

    /// The region that a scenario is about.
    static func region(of scenario: Scenario) throws -> RegionReference {
        let size = PageSize.base
        let data = (0..<scenario.pages).filter { !scenario.holes.contains($0) }
        let extents = Extents(of: 0..<scenario.pages * size.bytes, size) { offset in
            data.first { ($0 + 1) * size.bytes > offset }.map { $0 * size.bytes..<($0 + 1) * size.bytes }
        }
        return RegionReference(
            try RegionRecord(
                id: 1, count: scenario.pages * size.bytes, options: RegionOptions(readAhead: .none), extents: extents))
    }

    enum Violation: Error {
        case wrongContent(page: Int, ModelKernel.Page)
        case stuck
        /// In hand twice, or marked so with nobody who has it, or the other way round.
        case wrongHands
        case unfilled(page: Int)
    }

    private struct Author {
        var operations: [Operation]
        var step = 0
    }

    private var parent: ModelSide
    /// Until it is born it has nothing.
    private var child: ModelSide
    private var isBorn = false
    /// What the child of a fork that was not read yet has, and what it may read.
    private var unborn: (kernel: ModelKernel, allowed: [[ModelKernel.Page]])?
    private var touchers: [[Int]]
    private var childTouchers: [[Int]] = []
    private var authors: [Author]
    /// What a read of each page may find.
    private var allowed: [[ModelKernel.Page]]
    private var childAllowed: [[ModelKernel.Page]] = []
    private let scenario: Scenario
    private let defect: ModelHandler.Defect?

    static func word(_ offset: Int) -> UInt64 { UInt64(offset / ModelKernel.pageBytes) + 1 }

    init(_ scenario: Scenario, _ region: RegionReference, _ defect: ModelHandler.Defect?) throws {
        let kernel = ModelKernel(
            pages: Array(repeating: .empty, count: scenario.pages)
                + Array(repeating: .unmapped, count: scenario.spare))
        var machine = try PagerStateMachine()
        let range = AddressRange(start: kernel.base, count: scenario.pages * ModelKernel.pageBytes)
        try machine.add(Span(range: range, region: region, states: region.states, offset: 0))
        let nothing = try PagerStateMachine()
        parent = ModelSide(kernel, machine, region, scenario, defect)
        child = ModelSide(ModelKernel(pages: []), nothing, region, Scenario(touchers: [], handlers: 0), defect)
        touchers = scenario.touchers
        authors = scenario.authors.map { Author(operations: $0) }
        allowed =
            (0..<scenario.pages).map {
                [.word(scenario.holes.contains($0) ? 0 : Model.word($0 * ModelKernel.pageBytes))]
            }
            + Array(repeating: [.unmapped], count: scenario.spare)
        self.scenario = scenario
        self.defect = defect
    }

    // MARK: Steps

    /// Who takes a step.
    enum Actor: Hashable {
        case toucher(Int)
        case childToucher(Int)
        case author(Int)
        case parent(Int)
        case child(Int)
    }

    /// The actors that can take a step, in a fixed order.
    func ready() -> [Actor] {
        var actors: [Actor] = []
        for index in touchers.indices where !touchers[index].isEmpty && !parent.kernel.isWaiting(index) {
            actors.append(.toucher(index))
        }
        for index in authors.indices where canGoOn(index) { actors.append(.author(index)) }
        actors += parent.ready().map { .parent($0) }
        for index in childTouchers.indices where !childTouchers[index].isEmpty && !child.kernel.isWaiting(index) {
            actors.append(.childToucher(index))
        }
        return actors + child.ready().map { .child($0) }
    }

    private func canGoOn(_ index: Int) -> Bool {
        guard let operation = authors[index].operations.first else { return false }
        switch (operation, authors[index].step) {
        // The program must go on before its pages can be poisoned.
        case (.end, 0): return parent.kernel.gate == 0
        case (.end, _): return child.kernel.gate == 0
        case (.fork, 0): return !isBorn && unborn == nil
        case (_, 1), (.move, 2): return parent.kernel.released.contains(index)
        default: return true
        }
    }

    mutating func step(_ actor: Actor) throws {
        switch actor {
        case .toucher(let index):
            try Self.touch(&touchers[index], index, &parent.kernel, allowed)
        case .childToucher(let index):
            try Self.touch(&childTouchers[index], index, &child.kernel, childAllowed)
        case .author(let index): try goOn(index)
        case .parent(let index):
            try parent.step(index, limit: scenario.readLimit)
            Self.take(&parent.lost, &allowed)
        case .child(let index):
            try child.step(index, limit: scenario.readLimit)
            Self.take(&child.lost, &childAllowed)
        }
        if parent.hasPageInWrongHands() || child.hasPageInWrongHands() { throw Violation.wrongHands }
    }

    private static func touch(
        _ pages: inout [Int], _ index: Int, _ kernel: inout ModelKernel, _ allowed: [[ModelKernel.Page]]
    ) throws {
        let page = pages[0]
        guard let found = kernel.touch(index, page) else { return }
        guard allowed[page].contains(found) else { throw Violation.wrongContent(page: page, found) }
        pages.removeFirst()
    }

    /// Pages that were given up may read as poison, and as nothing else.
    private static func take(_ lost: inout [Int], _ allowed: inout [[ModelKernel.Page]]) {
        for page in lost { allowed[page] = [.poison] }
        lost = []
    }

    private mutating func goOn(_ index: Int) throws {
        let step = authors[index].step
        authors[index].step += 1
        switch (authors[index].operations[0], step) {
        case (.remove(let pages), 0):
            for page in pages { allowed[page].append(.word(0)) }
            parent.kernel.announce(.remove(range(pages)), author: index)
        case (.remove, 1):
            parent.kernel.goOn(index)
        case (.remove(let pages), _):
            for page in pages where parent.kernel.pages[page] != .unmapped {
                parent.kernel.set(page, .empty)
                allowed[page] = [.word(0)]
            }
            finish(index)
        case (.appear(let page), _):
            if parent.kernel.pages[page] == .empty, let content = allowed[page].first {
                parent.kernel.set(page, content)
            }
            finish(index)
        case (.unmap(let pages), 0):
            for page in pages {
                parent.kernel.set(page, .unmapped)
                allowed[page] = [.unmapped]
            }
            parent.kernel.announce(.unmap(range(pages)), author: index)
        case (.unmap, _):
            parent.kernel.goOn(index)
            finish(index)
        case (.move(let pages, let target, let keepsOld), 0):
            move(pages, to: target, keepsOld: keepsOld)
            let change = Change.remap(
                from: parent.kernel.address(pages.lowerBound), to: parent.kernel.address(target),
                count: range(pages).count)
            parent.kernel.announce(change, author: index, raising: keepsOld ? 1 : 2)
        case (.move(let pages, _, let keepsOld), 1):
            parent.kernel.goOn(index)
            if keepsOld {
                finish(index)
            } else {
                parent.kernel.announce(.unmap(range(pages)), author: index, raising: 0)
            }
        case (.move, _):
            parent.kernel.goOn(index)
            finish(index)
        case (.fork, 0):
            unborn = (parent.kernel.fork(author: index), allowed)
        case (.fork(let pages), _):
            parent.kernel.goOn(index)
            try bear(reading: pages)
            finish(index)
        case (.end, 0):
            Self.end(&parent, &allowed, defect)
            if !isBorn { finish(index) }
        case (.end, _):
            Self.end(&child, &childAllowed, defect)
            finish(index)
        }
    }

    private mutating func bear(reading pages: [Int]) throws {
        guard let unborn else { return }
        // Without an event there is nobody to serve it, and nothing to serve.
        let machine = try parent.born.take() ?? PagerStateMachine()
        child = ModelSide(unborn.kernel, machine, parent.region, scenario, defect)
        isBorn = true
        childTouchers = [pages]
        childAllowed = unborn.allowed
        self.unborn = nil
    }

    private static func end(
        _ side: inout ModelSide, _ allowed: inout [[ModelKernel.Page]], _ defect: ModelHandler.Defect?
    ) {
        guard let poisoned = side.end(passingOver: defect == .endsPastWhatIsInHand ? .claimed : []) else { return }
        for page in poisoned { allowed[page] = [.poison] }
    }

    private mutating func move(_ pages: Range<Int>, to target: Int, keepsOld: Bool) {
        for page in pages {
            // A hole stays one.
            guard parent.kernel.pages[page] != .unmapped else { continue }
            let new = target + page - pages.lowerBound
            parent.kernel.set(new, parent.kernel.pages[page])
            allowed[new] = allowed[page]
            parent.kernel.set(page, keepsOld ? .empty : .unmapped)
            allowed[page] = keepsOld ? [.word(0)] : [.unmapped]
        }
    }

    private mutating func finish(_ index: Int) {
        authors[index].operations.removeFirst()
        authors[index].step = 0
    }

    private func range(_ pages: Range<Int>) -> AddressRange {
        AddressRange(start: parent.kernel.address(pages.lowerBound), count: pages.count * ModelKernel.pageBytes)
    }

    // MARK: Ends

    /// Called when nobody can take a step.
    func checkEnd() throws {
        guard touchers.allSatisfy(\.isEmpty), childTouchers.allSatisfy(\.isEmpty),
            authors.allSatisfy(\.operations.isEmpty), parent.isFinished, child.isFinished
        else { throw Violation.stuck }
        for page in 0..<scenario.pages {
            guard !parent.region.states[page].contains(.claimed) else { throw Violation.wrongHands }
            if scenario.populates, parent.kernel.pages[page] == .empty, allowed[page] != [.word(0)] {
                throw Violation.unfilled(page: page)
            }
        }
    }

    /// More to do for the threads of the program, for runs without an end.
    mutating func give(toucher index: Int, _ page: Int) { touchers[index].append(page) }
    mutating func give(author index: Int, _ operation: Operation) { authors[index].operations.append(operation) }
    func isBusy(toucher index: Int) -> Bool { !touchers[index].isEmpty }
    func isBusy(author index: Int) -> Bool { !authors[index].operations.isEmpty }
}
