internal import Synchronization
internal import UserfaultFD

/// What all parts of a region share, wherever the program moves them and whichever process they are copied to.
struct RegionRecord: ~Copyable {
    let id: Int
    let pageShift: Int
    let pageCount: Int
    let options: RegionOptions
    let window: ReadAheadWindow
    /// The spans that refer to this record, of all descriptors, and the calls that hold it.
    let references = Atomic<Int>(0)
    /// Its memory was let go of, and the region is about to be forgotten: nothing tells any more what is unmapped there.
    let isLeaving = Atomic<Bool>(false)
    /// Whether a page that is dropped is the source's to bring again: it is kept in a file that others share.
    let isOwedAgain: Bool
    /// How its memory is registered.
    let modes: UserfaultFD.RegisterModes
    /// The states of its pages, and behind them what was counted of it.
    let states: Mapping
    /// What was counted of it.
    let counters: CounterRows
    /// Where it is written down for a successor.
    let slot: Int?
    /// Where the source has data for it.
    let extents: Extents

    /// - Parameters:
    ///   - states: Zeroed memory for the states of its pages, where that is not the record's to make.
    ///   - slot: Where it is written down.
    /// - Throws: `ENOMEM` where there is no memory for the states.
    /// Whether pages are huge pages of hugetlbfs, which follow rules of their own.
    let isHuge: Bool

    init(
        id: Int, count: Int, options: RegionOptions, fillsFile: Bool = false, extents: consuming Extents = Extents(),
        states: consuming Mapping? = nil, slot: Int? = nil
    ) throws(UserfaultError) {
        self.id = id
        self.extents = extents
        self.slot = slot
        isOwedAgain = fillsFile
        var modes: UserfaultFD.RegisterModes = .missing
        if fillsFile { modes.insert(.minor) }
        if options.writeProtected { modes.insert(.writeProtect) }
        self.modes = modes
        pageShift = options.pageSize.log2
        pageCount = options.pageSize.pages(in: count)
        self.options = options
        isHuge = options.pageSize > .base
        window = ReadAheadWindow(maximum: options.readAhead.maximumPages)
        if let states {
            self.states = states
        } else {
            self.states = try Self.makeMemory(pages: pageCount)
        }
        counters = unsafe CounterRows(self.states.unsafeBaseAddress + PageStates.bytes(pages: pageCount))
    }

    /// Memory for the states of pages, and for what is counted.
    ///
    /// The states of large regions lie in huge pages if the kernel has some: the first touch of 4 GiB is then one fault of the
    /// pager's own, and not up to 512 that take a quarter as long as those that it serves.
    private static func makeMemory(pages: Int) throws(UserfaultError) -> Mapping {
        let huge = 2 << 20
        let bytes = PageStates.bytes(pages: pages)
        let count = bytes + CounterRows.bytes
        guard bytes >= huge else { return try Mapping(anonymous: count, options: .noReserve) }
        // The kernel aligns to huge pages only what is a multiple of them.
        let memory = try Mapping(anonymous: (count + huge - 1) & ~(huge - 1), options: .noReserve)
        try? memory.advise(.hugePage, memory.range.part(at: 0, count: bytes & ~(huge - 1)))
        return memory
    }
}

/// A reference to a record that the pager keeps for as long as a span or a thread refers to it.
@safe
struct RegionReference: @unchecked Sendable, Equatable {
    private let record: UnsafeMutablePointer<RegionRecord>

    init(_ record: consuming RegionRecord) {
        unsafe self.record = .allocate(capacity: 1)
        unsafe self.record.initialize(to: record)
    }

    /// Frees the record, to which nobody may refer any more.
    @unsafe func destroy() {
        unsafe record.deinitialize(count: 1)
        unsafe record.deallocate()
    }

    static func == (lhs: RegionReference, rhs: RegionReference) -> Bool { unsafe lhs.record == rhs.record }

    var id: Int { unsafe record.pointee.id }
    var slot: Int? { unsafe record.pointee.slot }
    var pageShift: Int { unsafe record.pointee.pageShift }
    var pageCount: Int { unsafe record.pointee.pageCount }
    var pageSize: PageSize { unsafe record.pointee.options.pageSize }
    var isHuge: Bool { unsafe record.pointee.isHuge }
    var modes: UserfaultFD.RegisterModes { unsafe record.pointee.modes }
    var isOwedAgain: Bool { unsafe record.pointee.isOwedAgain }
    var isRegisteredByPager: Bool { unsafe record.pointee.options.registration == .byPager }
    var isAbsentInFork: Bool { unsafe record.pointee.options.inFork == .absent }
    var writeProtected: Bool { unsafe record.pointee.options.writeProtected }
    var failure: FailurePolicy { unsafe record.pointee.options.failure }
    var isReferredTo: Bool { unsafe record.pointee.references.load(ordering: .acquiring) > 0 }
    var isLeaving: Bool { unsafe record.pointee.isLeaving.load(ordering: .acquiring) }
    func noteLeaving() { unsafe record.pointee.isLeaving.store(true, ordering: .releasing) }

    /// The states of the pages that the region began with.
    var states: PageStates { unsafe PageStates(record.pointee.states.unsafeBaseAddress) }

    /// Whether a page is zeros that nobody is asked for.
    @inline(__always)
    func isHole(at offset: Int) -> Bool { unsafe record.pointee.extents.haveHoles && !hasContent(at: offset) }

    /// A hole of a file that others share is a page of the file all the same: they see what is written to it.
    @inline(never)
    private func hasContent(at offset: Int) -> Bool {
        isOwedAgain || data(from: offset).map { $0.lowerBound <= offset } ?? false
    }

    /// The first data of the source that ends after an offset; `nil` if only zeros follow.
    func data(from offset: Int) -> Range<Int>? { unsafe record.pointee.extents.next(from: offset) }

    /// What was counted of it.
    var counters: CounterRows { unsafe record.pointee.counters }

    /// How many pages to fill behind a fault, see ``ReadAheadWindow``.
    @inline(__always)
    func readAhead(at offset: Int) -> Int { unsafe record.pointee.window.next(page: offset &>> pageShift) }

    func countReferences(_ difference: Int) {
        unsafe record.pointee.references.add(difference, ordering: .acquiringAndReleasing)
    }

    /// The identity, for a thread to publish which region it works on.
    var bits: UInt { UInt(bitPattern: unsafe record) }
}
