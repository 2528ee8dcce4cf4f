import UserfaultFD

@testable import UserfaultPager

/// A program, a kernel and a pager, of which one actor at a time takes one step.
struct Model: ~Copyable {
    /// What a thread of the program does to its memory.
    enum Operation {
        case remove(pages: Range<Int>)
        case unmap(pages: Range<Int>)
        case move(pages: Range<Int>, to: Int, keepsOld: Bool)
        /// Another process puts the page there, which wakes nobody here: memory that is shared.
        case appear(page: Int)
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
        case claimLeft(page: Int)
    }

    private struct Author {
        var operations: [Operation]
        var step = 0
    }

    private var kernel: ModelKernel
    private var machine: PagerStateMachine
    private var handlers: [ModelHandler]
    private var touchers: [[Int]]
    private var authors: [Author]
    /// What a read of each page may find.
    private var allowed: [[ModelKernel.Page]]
    private let readLimit: Int
    private let sourcePages: Int

    static func word(_ offset: Int) -> UInt64 { UInt64(offset / ModelKernel.pageBytes) + 1 }

    init(_ scenario: Scenario, _ region: RegionReference, _ defect: ModelHandler.Defect?) throws {
        let kernel = ModelKernel(
            pages: Array(repeating: .empty, count: scenario.pages)
                + Array(repeating: .unmapped, count: scenario.spare))
        var machine = try PagerStateMachine()
        let range = AddressRange(start: kernel.base, count: scenario.pages * ModelKernel.pageBytes)
        try machine.add(Span(range: range, region: region, states: region.states, offset: 0))
        self.kernel = kernel
        self.machine = machine
        handlers = Array(
            repeating: ModelHandler(defect: defect, readAhead: scenario.readAhead), count: scenario.handlers)
        touchers = scenario.touchers
        authors = scenario.authors.map { Author(operations: $0) }
        allowed =
            (0..<scenario.pages).map {
                [.word(scenario.holes.contains($0) ? 0 : Model.word($0 * ModelKernel.pageBytes))]
            }
            + Array(repeating: [.unmapped], count: scenario.spare)
        readLimit = scenario.readLimit
        sourcePages = scenario.pages
    }

    // MARK: Steps

    /// The actors that can take a step: touchers, authors, handlers, in this order.
    func ready() -> [Int] {
        var actors: [Int] = []
        for index in touchers.indices where !touchers[index].isEmpty && !kernel.isWaiting(index) {
            actors.append(index)
        }
        for index in authors.indices where canGoOn(index) { actors.append(touchers.count + index) }
        for index in handlers.indices where handlers[index].canStep(kernel) {
            actors.append(touchers.count + authors.count + index)
        }
        return actors
    }

    private func canGoOn(_ index: Int) -> Bool {
        guard let operation = authors[index].operations.first else { return false }
        switch (operation, authors[index].step) {
        case (_, 1), (.move, 2): return kernel.released.contains(index)
        default: return true
        }
    }

    mutating func step(_ actor: Int) throws {
        if actor < touchers.count { return try touch(actor) }
        let author = actor - touchers.count
        if author < authors.count { return goOn(author) }
        try handlers[author - authors.count].step(&kernel, &machine, limit: readLimit)
    }

    private mutating func touch(_ index: Int) throws {
        let page = touchers[index][0]
        guard let found = kernel.touch(index, page) else { return }
        guard allowed[page].contains(found) else { throw Violation.wrongContent(page: page, found) }
        touchers[index].removeFirst()
    }

    private mutating func goOn(_ index: Int) {
        let step = authors[index].step
        authors[index].step += 1
        switch (authors[index].operations[0], step) {
        case (.remove(let pages), 0):
            for page in pages { allowed[page].append(.word(0)) }
            kernel.announce(.remove(range(pages)), author: index)
        case (.remove, 1):
            kernel.goOn(index)
        case (.remove(let pages), _):
            for page in pages where kernel.pages[page] != .unmapped {
                kernel.set(page, .empty)
                allowed[page] = [.word(0)]
            }
            finish(index)
        case (.appear(let page), _):
            if kernel.pages[page] == .empty, let content = allowed[page].first { kernel.set(page, content) }
            finish(index)
        case (.unmap(let pages), 0):
            for page in pages {
                kernel.set(page, .unmapped)
                allowed[page] = [.unmapped]
            }
            kernel.announce(.unmap(range(pages)), author: index)
        case (.unmap, _):
            kernel.goOn(index)
            finish(index)
        case (.move(let pages, let target, let keepsOld), 0):
            move(pages, to: target, keepsOld: keepsOld)
            let change = Change.remap(
                from: kernel.address(pages.lowerBound), to: kernel.address(target), count: range(pages).count)
            kernel.announce(change, author: index, raising: keepsOld ? 1 : 2)
        case (.move(let pages, _, let keepsOld), 1):
            kernel.goOn(index)
            if keepsOld { finish(index) } else { kernel.announce(.unmap(range(pages)), author: index, raising: 0) }
        case (.move, _):
            kernel.goOn(index)
            finish(index)
        }
    }

    private mutating func move(_ pages: Range<Int>, to target: Int, keepsOld: Bool) {
        for page in pages {
            // A hole stays one.
            guard kernel.pages[page] != .unmapped else { continue }
            let new = target + page - pages.lowerBound
            kernel.set(new, kernel.pages[page])
            allowed[new] = allowed[page]
            kernel.set(page, keepsOld ? .empty : .unmapped)
            allowed[page] = keepsOld ? [.word(0)] : [.unmapped]
        }
    }

    private mutating func finish(_ index: Int) {
        authors[index].operations.removeFirst()
        authors[index].step = 0
    }

    private func range(_ pages: Range<Int>) -> AddressRange {
        AddressRange(start: kernel.address(pages.lowerBound), count: pages.count * ModelKernel.pageBytes)
    }

    // MARK: Ends

    /// Called when nobody can take a step.
    func checkEnd(_ region: RegionReference) throws {
        guard touchers.allSatisfy(\.isEmpty), authors.allSatisfy(\.operations.isEmpty),
            handlers.allSatisfy(\.later.isEmpty)
        else { throw Violation.stuck }
        for page in 0..<sourcePages {
            if region.states[page].contains(.claimed) { throw Violation.claimLeft(page: page) }
        }
    }

    /// More to do for the threads of the program, for runs without an end.
    mutating func give(toucher index: Int, _ page: Int) { touchers[index].append(page) }
    mutating func give(author index: Int, _ operation: Operation) { authors[index].operations.append(operation) }
    func isBusy(toucher index: Int) -> Bool { !touchers[index].isEmpty }
    func isBusy(author index: Int) -> Bool { !authors[index].operations.isEmpty }
}
