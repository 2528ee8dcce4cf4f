internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Written by callers that add and remove regions, and by the thread that reads events, in the order of the descriptor.
// Nothing takes memory from the heap but the restoring.

/// The memory file of a ``PagerState``: everything in it but the states of pages.
///
/// Whatever is killed at whatever point leaves a file that is right: each step ends in one store of one word.
@safe
final class StateFile: @unchecked Sendable {
    typealias Word = UInt64

    /// Of words.
    enum Header: Int {
        case magic, version, pageSize, features, end
        /// How many readings have begun.
        case begun
        /// How many readings were taken in, and which table says so: two times the number, plus the table.
        case map
    }

    static var magic: Word { 0x3154_4750_4446_4655 }
    static var version: Word { 2 }

    /// Where things are in the file, in bytes.
    enum Place {
        static var messages: Int { 64 << 10 }
        static var slots: Int { 128 << 10 }
        static var tables: Int { 1 << 20 }
        static var tableBytes: Int { 4 << 20 }
        static var states: Int { 16 << 20 }
    }

    static var slotCount: Int { 4000 }
    static var wordsPerSlot: Int { 16 }
    static var wordsPerSpan: Int { 6 }
    static var spanLimit: Int { (Place.tableBytes / 8 - 2) / wordsPerSpan }
    /// How many messages one reading takes.
    static var batchCapacity: Int { 16 }

    private let memfd: Memfd
    private let head: Mapping
    /// What was read, until it is taken in.
    ///
    /// In the order.
    private var batch: EventBatch
    private let use: Mutex<Use>
    /// Held by who takes a place for a region.
    let making = Mutex<Void>(())

    enum Use {
        /// No pager has it, and it holds nothing.
        case new
        /// No pager has it, and it holds what another left.
        case left
        /// A pager has it.
        case taken
    }

    convenience init() throws(PagerError) {
        let memfd = try asPagerError { () throws(UserfaultError) in
            let memfd = try Memfd(name: "pager-state", count: Place.states)
            try memfd.addSeals(.shrink)
            return memfd
        }
        try self.init(memfd, .new)
        self[.version] = Self.version
        self[.pageSize] = Word(PageSize.base.bytes)
        self[.end] = Word(Place.states)
        self[.magic] = Self.magic
    }

    /// Takes a duplicate of a descriptor.
    convenience init(duplicating rawDescriptor: Int32) throws(PagerError) {
        let memfd = try asPagerError { () throws(UserfaultError) in try Memfd(duplicating: rawDescriptor) }
        try Self.check(memfd)
        try self.init(memfd, .left)
    }

    private init(_ memfd: consuming Memfd, _ use: Use) throws(PagerError) {
        let head: Mapping
        do throws(UserfaultError) { head = try Mapping(memfd, count: Place.states) } catch { throw .kernel(error) }
        batch = unsafe EventBatch(
            storage: head.unsafeBaseAddress + Place.messages, capacity: Self.batchCapacity)
        self.head = head
        self.memfd = memfd
        self.use = Mutex(use)
    }

    private static func check(_ memfd: borrowing Memfd) throws(PagerError) {
        let refusal = PagerError.state("the file is not the state of a pager")
        let status: Memfd.Status
        do throws(UserfaultError) { status = try memfd.status() } catch { throw .kernel(error) }
        guard memfd.pageSize == .base, status.count >= Place.states else { throw refusal }
        // Without it, whoever shares the file could take away what is mapped here.
        guard let seals = try? memfd.seals(), seals.contains(.shrink) else { throw refusal }
        let head: Mapping
        do throws(UserfaultError) { head = try Mapping(memfd, count: PageSize.base.bytes) } catch {
            throw .kernel(error)
        }
        func word(_ field: Header) -> Word {
            unsafe head.unsafeBaseAddress.load(fromByteOffset: field.rawValue * 8, as: Word.self)
        }
        guard word(.magic) == magic else { throw refusal }
        guard word(.version) == version else {
            throw .state("the state has the version \(word(.version)), and not \(version)")
        }
        guard word(.pageSize) == Word(PageSize.base.bytes), word(.end) >= Word(Place.states),
            word(.end) <= Word(status.count)
        else { throw refusal }
    }

    func withUnsafeDescriptor<Result, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try memfd.withUnsafeDescriptor(body)
    }

    // MARK: Words

    private func atomic(_ byte: Int) -> UnsafeMutablePointer<Atomic<Word>> {
        unsafe (head.unsafeBaseAddress + byte).assumingMemoryBound(to: Atomic<Word>.self)
    }

    subscript(field: Header) -> Word {
        get { unsafe atomic(field.rawValue * 8).pointee.load(ordering: .acquiring) }
        set { unsafe atomic(field.rawValue * 8).pointee.store(newValue, ordering: .releasing) }
    }

    func slotWord(_ slot: Int, _ field: Int) -> Word {
        unsafe atomic(Place.slots + (slot * Self.wordsPerSlot + field) * 8).pointee.load(ordering: .acquiring)
    }

    func setSlotWord(_ slot: Int, _ field: Int, _ value: Word) {
        unsafe atomic(Place.slots + (slot * Self.wordsPerSlot + field) * 8).pointee.store(value, ordering: .releasing)
    }

    func tableWord(_ table: Int, _ index: Int) -> Word {
        unsafe atomic(Place.tables + table * Place.tableBytes + index * 8).pointee.load(ordering: .relaxed)
    }

    private func setTableWord(_ table: Int, _ index: Int, _ value: Word) {
        unsafe atomic(Place.tables + table * Place.tableBytes + index * 8).pointee.store(value, ordering: .relaxed)
    }

    var currentTable: Int { Int(self[.map] & 1) }

    // MARK: Use

    /// Begins to serve a pager.
    ///
    /// - Returns: `false` if it is another's, or not as a pager that begins, or resumes, needs it.
    func take(resuming: Bool) -> Bool {
        use.withLock { use in
            guard use == (resuming ? .left : .new) else { return false }
            use = .taken
            return true
        }
    }

    /// Leaves to another what was taken for a pager that begins, and has not begun.
    func giveBack() { use.withLock { $0 = .new } }

    /// Leaves what was taken to another that resumes.
    func leave() { use.withLock { $0 = .left } }

    var isLeft: Bool { use.withLock { $0 == .left } }

    // MARK: Memory of pages' states

    static func bytesOfStates(pages: Int) -> Int { PageStates.bytes(pages: pages) + CounterRows.bytes }

    /// Maps the states of a region's pages.
    func mapStates(at offset: Int, pages: Int) throws(UserfaultError) -> Mapping {
        try Mapping(memfd, offset: offset, count: Self.bytesOfStates(pages: pages))
    }

    /// Makes room for the states of a region's pages, zeroed.
    func allocateStates(pages: Int) throws(UserfaultError) -> Int {
        let place = Int(self[.end])
        let end = place + (Self.bytesOfStates(pages: pages) + (64 << 10) - 1) & ~((64 << 10) - 1)
        try memfd.resize(to: end)
        self[.end] = Word(end)
        return place
    }

    func freeStates(at offset: Int, pages: Int) {
        try? memfd.punchHole(at: offset, count: Self.bytesOfStates(pages: pages))
    }

    /// The part of the file that has memory, from an offset on.
    func memory(from offset: Int) -> Range<Int>? { try? memfd.dataRange(from: offset) }

    // MARK: Readings

    /// Reads in the order of the descriptor, so that what was read is found here until ``note(_:changed:)``.
    func read(
        _ uffd: borrowing UserfaultFD, into batch: inout EventBatch, neverWaits: Bool
    ) throws(UserfaultError) -> Int? {
        self.batch.erase()
        self[.begun] &+= 1
        let count = try uffd.readWhereDescriptorsAreFree(into: &self.batch, neverWaits: neverWaits)
        batch.copyMessages(of: self.batch)
        return count
    }

    /// Says that all that was read is taken in.
    ///
    /// - Parameter changed: Whether the address map is another now.
    func note(_ machine: borrowing PagerStateMachine, changed: Bool) {
        var table = currentTable
        if changed {
            table = 1 - table
            guard write(machine, to: table) else {
                // Too many pieces: what is there is not right any more, and nobody may go on from it.
                self[.magic] = 0
                return
            }
        }
        self[.map] = self[.begun] << 1 | Word(table)
    }

    private func write(_ machine: borrowing PagerStateMachine, to table: Int) -> Bool {
        var count = 0
        func put(_ span: Span) -> Bool {
            guard let slot = span.region.slot else { return true }
            guard count < Self.spanLimit else { return false }
            let first = 2 + count * Self.wordsPerSpan
            setTableWord(table, first, Word(span.range.start))
            setTableWord(table, first + 1, Word(span.range.count))
            setTableWord(table, first + 2, Word(slot))
            let page = span.states.map { $0.distance(from: span.region.states) + 1 } ?? 0
            setTableWord(table, first + 3, Word(page))
            setTableWord(table, first + 4, Word(span.offset))
            count += 1
            return true
        }
        for index in 0..<machine.spans.count where !put(machine.spans[index]) { return false }
        setTableWord(table, 0, Word(count))
        let live = count
        for index in 0..<machine.stale.count where !put(machine.stale[index]) { return false }
        setTableWord(table, 1, Word(count - live))
        return true
    }

    /// Takes in the changes that a reading has brought and that were not taken in.
    ///
    /// - Parameter body: Gets each event but faults.
    /// - Returns: `false`, and hands out none, if they cannot be what a reading has brought.
    func recover(_ body: (consuming Event) throws(UserfaultError) -> Void) throws(UserfaultError) -> Bool {
        guard self[.begun] != self[.map] >> 1 else { return true }
        guard batch.recover() else { return false }
        while !batch.isEmpty {
            guard batch.nextPageFault() == nil, let event = batch.next() else { continue }
            try body(event)
        }
        return true
    }
}
