internal import Synchronization
internal import UserfaultFD

// Written by one thread, read by any.

/// What a serving thread shows to others: counters that it alone writes, and what it has in hand.
@safe
struct ThreadRecord: @unchecked Sendable {
    private let fields: UnsafeMutablePointer<Fields>

    @safe private struct Fields: ~Copyable {
        let counters = InlineArray<16, Atomic<UInt64>> { _ in Atomic(0) }
        /// Where it counts in what belongs to a region.
        var row: Int
        let readsMessages: Bool
        let lastLoad = Atomic<UInt64>(0)
        let lastFill = Atomic<UInt64>(0)
        let load = LiveHistogram()
        let fill = LiveHistogram()
        let service = LiveHistogram()
        let task = Atomic<Int32>(0)
        let work = Atomic<UInt64>(0)
        let since = Atomic<UInt64>(0)
        let address = Atomic<UInt>(0)
        let region = Atomic<UInt>(0)
        let asksInOrder = Atomic<Bool>(false)
        /// What the source is asked for, where it has a time limit, until somebody takes it away.
        let limitedLoad = Mutex<Load?>(nil)

        init(row: Int, readsMessages: Bool) {
            self.row = row
            self.readsMessages = readsMessages
        }
    }

    /// Pages that the source is asked for.
    struct Load {
        let claim: Claim
        let memory: ServedMemory
        /// Whether its thread may have read other faults, which nobody serves meanwhile.
        let keepsOthers: Bool
        fileprivate let since: UInt64
    }

    /// - Parameters:
    ///   - takesRow: Whether it takes a row at once, and not by ``takeRow()``.
    ///   - readsMessages: Whether its thread is one of several that read messages and serve them.
    init(takesRow: Bool = true, readsMessages: Bool = false) {
        unsafe fields = .allocate(capacity: 1)
        let row = takesRow ? CounterRow.take() : CounterRow.shared
        unsafe fields.initialize(to: Fields(row: row, readsMessages: readsMessages))
    }

    /// Takes a row if it has none of its own; on the thread that counts.
    @inline(__always)
    func takeRow() {
        if unsafe fields.pointee.row == CounterRow.shared { unsafe fields.pointee.row = CounterRow.take() }
    }

    /// Of a thread that works for no pager.
    static let nobodys = ThreadRecord()

    static func == (lhs: ThreadRecord, rhs: ThreadRecord) -> Bool { unsafe lhs.fields == rhs.fields }

    @unsafe func destroy() {
        unsafe CounterRow.giveBack(fields.pointee.row)
        unsafe fields.deinitialize(count: 1)
        unsafe fields.deallocate()
    }

    @inline(__always)
    func count(_ counter: Counter, _ amount: Int = 1) {
        unsafe fields.pointee.counters[counter.rawValue].increase(by: UInt64(amount))
    }

    /// Counts what is of a region, which must not go away.
    @inline(__always)
    func count(_ counter: Counter, _ amount: Int = 1, in region: RegionReference) {
        count(counter, amount)
        unsafe region.counters.count(counter, amount, in: fields.pointee.row)
    }

    @inline(__always)
    func recordLoad(_ nanoseconds: UInt64) {
        unsafe fields.pointee.load.record(nanoseconds)
        unsafe fields.pointee.lastLoad.store(nanoseconds, ordering: .relaxed)
    }
    @inline(__always)
    func recordFill(_ nanoseconds: UInt64) {
        unsafe fields.pointee.fill.record(nanoseconds)
        unsafe fields.pointee.lastFill.store(nanoseconds, ordering: .relaxed)
    }
    @inline(__always)
    func recordService(_ nanoseconds: UInt64) { unsafe fields.pointee.service.record(nanoseconds) }

    /// How long the last load and the last fill took since ``clearTimes()``, for the thread itself.
    var lastLoad: UInt64 { unsafe fields.pointee.lastLoad.load(ordering: .relaxed) }
    var lastFill: UInt64 { unsafe fields.pointee.lastFill.load(ordering: .relaxed) }

    func clearTimes() {
        unsafe fields.pointee.lastLoad.store(0, ordering: .relaxed)
        unsafe fields.pointee.lastFill.store(0, ordering: .relaxed)
    }

    func counted(_ counter: Counter) -> UInt64 {
        unsafe fields.pointee.counters[counter.rawValue].load(ordering: .relaxed)
    }

    /// Adds what was counted to a snapshot.
    func add(to statistics: inout PagerStatistics) {
        statistics.add(counted)
        if isWorking { statistics.outstanding += 1 }
        unsafe fields.pointee.load.add(to: &statistics.load)
        unsafe fields.pointee.fill.add(to: &statistics.fill)
        unsafe fields.pointee.service.add(to: &statistics.service)
    }

    // MARK: What the thread has in hand

    /// The thread's id, once it runs.
    var task: Int32 { unsafe fields.pointee.task.load(ordering: .relaxed) }

    func nameTask(_ task: Int32) { unsafe fields.pointee.task.store(task, ordering: .relaxed) }

    /// Says that the source is asked for pages of a region, which must not go away.
    @inline(__always)
    func begin(_ address: UInt, region: UInt, since: UInt64) {
        unsafe fields.pointee.address.store(address, ordering: .relaxed)
        unsafe fields.pointee.since.store(since, ordering: .relaxed)
        unsafe fields.pointee.region.store(region, ordering: .releasing)
    }

    /// Says that the pages were given back.
    @inline(__always)
    func end() { unsafe fields.pointee.region.store(0, ordering: .releasing) }

    /// Whether the source is being asked while the order is shared; for the thread itself.
    var asksInOrder: Bool {
        get { unsafe fields.pointee.asksInOrder.load(ordering: .relaxed) }
        nonmutating set { unsafe fields.pointee.asksInOrder.store(newValue, ordering: .relaxed) }
    }

    /// Whether its thread is one of several that read messages and serve them.
    var readsMessages: Bool { unsafe fields.pointee.readsMessages }

    var isWorking: Bool { unsafe fields.pointee.region.load(ordering: .acquiring) != 0 }
    func isWorking(on region: UInt) -> Bool { unsafe fields.pointee.region.load(ordering: .acquiring) == region }
    var workAddress: UInt { unsafe fields.pointee.address.load(ordering: .relaxed) }
    var workSince: UInt64 { unsafe fields.pointee.since.load(ordering: .relaxed) }

    // MARK: Loads with a time limit

    /// Says that the source is asked for pages in hand, which may be taken away meanwhile.
    ///
    /// A lock, because what was seen of one load must not be done to the next one; nothing is done under it but this.
    func beginLoad(_ claim: Claim, of memory: ServedMemory, at now: UInt64) {
        let load = Load(claim: claim, memory: memory, keepsOthers: readsMessages, since: now)
        unsafe fields.pointee.limitedLoad.withLock { $0 = load }
    }

    /// - Returns: `false` where the pages were taken away, and are not to be touched any more.
    func endLoad() -> Bool {
        unsafe fields.pointee.limitedLoad.withLock { load in
            defer { load = nil }
            return load != nil
        }
    }

    /// Takes away pages whose load began before a moment.
    ///
    /// Only while no region can be freed: the taker is shown to work on theirs in place of this thread. The memory is
    /// in use until its `endUse()`.
    ///
    /// - Parameter taker: The record of the calling thread.
    func takeLoad(begunBefore moment: UInt64, for taker: ThreadRecord) -> Load? {
        unsafe fields.pointee.limitedLoad.withLock { load in
            guard let taken = load, taken.since < moment, taken.memory.beginUse() else { return nil }
            load = nil
            taker.begin(taken.claim.range.start, region: taken.claim.region.bits, since: taken.since)
            return taken
        }
    }
}
