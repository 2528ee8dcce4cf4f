import UserfaultFD

@testable import UserfaultPager

/// What a kernel does with one descriptor, reduced to what a pager can tell: pages, waiters, messages, and the gate
/// that is up from a change until its author goes on.
struct ModelKernel {
    enum Page: Equatable {
        case empty, unmapped, poison
        case word(UInt64)
    }

    enum Message: Equatable {
        case fault(UInt)
        case change(Change, author: Int)
        case fork(author: Int)
    }

    static let pageBytes = PageSize.base.bytes

    private(set) var pages: [Page]
    let base: UInt = 0x10000
    /// Faults first, then changes, each in their order: as `read` hands them out.
    private(set) var faults: [UInt] = []
    private(set) var changes: [Message] = []
    /// Changes whose author has not gone on yet.
    private(set) var gate = 0
    /// Authors whose event was read.
    private(set) var released: Set<Int> = []
    /// Threads that wait, and for which address.
    private(set) var waiters: [Int: UInt] = [:]
    /// Whether faults and changes are told.
    private(set) var isRegistered = true
    /// Authors whose change is told nobody.
    private var untold: Set<Int> = []

    init(pages: [Page]) {
        self.pages = pages
    }

    func address(_ page: Int) -> UInt { base + UInt(page * Self.pageBytes) }
    func index(_ address: UInt) -> Int { Int(address - base) / Self.pageBytes }

    var hasMessages: Bool { !faults.isEmpty || !changes.isEmpty }

    // MARK: The program

    /// A thread touches a page: what it finds, or `nil` where it now waits.
    mutating func touch(_ thread: Int, _ page: Int) -> Page? {
        guard pages[page] == .empty else { return pages[page] }
        guard isRegistered else {
            pages[page] = .word(0)
            return pages[page]
        }
        waiters[thread] = address(page)
        faults.append(address(page))
        return nil
    }

    func isWaiting(_ thread: Int) -> Bool { waiters[thread] != nil }

    /// A change begins: from now on nothing can be filled until its author goes on.
    ///
    /// - Parameter raising: How often the gate goes up: a move raises it for the unmapping that follows too.
    mutating func announce(_ change: Change, author: Int, raising: Int = 1) {
        announce(.change(change, author: author), author: author, raising: raising)
    }

    /// A fork begins.
    ///
    /// - Returns: What the child has.
    mutating func fork(author: Int) -> ModelKernel {
        var child = ModelKernel(pages: pages)
        child.isRegistered = isRegistered
        announce(.fork(author: author), author: author, raising: 1)
        return child
    }

    private mutating func announce(_ message: Message, author: Int, raising: Int) {
        guard isRegistered else {
            untold.insert(author)
            released.insert(author)
            return
        }
        gate += raising
        changes.append(message)
    }

    /// The author of a change goes on: its event was read.
    mutating func goOn(_ author: Int) {
        released.remove(author)
        if untold.remove(author) == nil { gate -= 1 }
    }

    mutating func set(_ page: Int, _ content: Page) { pages[page] = content }

    // MARK: The pager

    mutating func read(limit: Int) -> [Message] {
        var messages: [Message] = []
        while messages.count < limit, !faults.isEmpty { messages.append(.fault(faults.removeFirst())) }
        while messages.count < limit, !changes.isEmpty {
            let message = changes.removeFirst()
            switch message {
            case .change(_, let author), .fork(let author): released.insert(author)
            case .fault: break
            }
            messages.append(message)
        }
        return messages
    }

    mutating func wake(_ range: AddressRange) {
        for (thread, address) in waiters where range.contains(address) { waiters[thread] = nil }
        // A message that was not read vanishes with its waiter.
        faults.removeAll { range.contains($0) }
    }

    /// Nothing is told any more, and nobody waits.
    mutating func unregister() {
        isRegistered = false
        waiters = [:]
        faults = []
    }

    /// A fill, with the answers of a real one.
    mutating func fill(_ range: AddressRange, _ content: (Int) -> Page) -> FillOutcome {
        guard gate == 0 else { return .changing }
        let first = index(range.start)
        let count = range.count / Self.pageBytes
        guard isRegistered, pages[first..<first + count].allSatisfy({ $0 != .unmapped }) else { return .noRange }
        var done = 0
        while done < count, pages[first + done] == .empty {
            pages[first + done] = content(done)
            done += 1
        }
        guard done > 0 else { return .exists }
        wake(range.part(at: 0, count: done * Self.pageBytes))
        return done == count ? .done : .stopped(after: done * Self.pageBytes)
    }
}
