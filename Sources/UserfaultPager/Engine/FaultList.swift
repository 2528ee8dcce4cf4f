internal import UserfaultFD

// Of one thread at a time: of a handler or the reader, or under the lock of ServedMemory.kept.

/// A fault that could not be resolved yet.
struct PendingFault {
    var fault: PageFault
    /// When it was read.
    let since: UInt64
    /// Not to be tried before.
    var due: UInt64 = 0
    /// How often it was tried.
    var attempts = 0
    /// How often the source has failed.
    var failures = 0
    /// How often the file had no page that the source said was there.
    var absences = 0
    /// A thread that must not wait has tried it and left it to one that may.
    var wasTried = false
    /// How many pages that thread found to be worth filling after it.
    var ahead = 0
    /// The job that it is a part of; 0 for none.
    var job = 0
    /// It was read by the thread that serves it, a moment ago: no further look at the clock tells more.
    var isJustNow = false
    /// However soon it is served, the page may be another's: a signal does not say whose it is, and a message may have waited
    /// until it was read.
    var isUncertain = false

    /// Whether its page may have become another's: no thread has faulted there just now.
    ///
    /// A thread that waits may be interrupted, and then unmap what it has touched.
    func mayBeForeign(at moment: UInt64) -> Bool {
        isUncertain || since == 0 || job != 0 || moment &- since > 10_000_000
    }

    var mayBeForeign: Bool { mayBeForeign(at: MonotonicInstant.now.nanoseconds) }

    /// How long to wait until the mapping has changed, in nanoseconds: a little longer after many attempts.
    ///
    /// Not much: if a program changes its memory all the time, a thread that tries seldom waits for ever.
    private var pause: UInt64 { 50_000 << UInt64(min(attempts / 16, 2)) }

    /// Says when to try again, where the retry of a source has not said so.
    mutating func setDue() {
        if due == 0 { due = MonotonicInstant.now.nanoseconds &+ pause }
    }
}

/// Faults in the order in which they came, in room that is mapped and not taken from the heap.
@safe
struct FaultList: ~Copyable {
    private let capacity: Int
    private var memory: Mapping?
    /// Where it is, and how long, in bytes; of a list without room, nowhere.
    private var faults: UnsafeMutablePointer<PendingFault>
    private var room = 0
    private(set) var count = 0

    /// A list whose room is mapped when it is needed.
    init(upTo capacity: Int) {
        self.capacity = capacity
        unsafe faults = Self.nowhere
    }

    private static var nowhere: UnsafeMutablePointer<PendingFault> {
        unsafe UnsafeMutablePointer(bitPattern: MemoryLayout<PendingFault>.alignment)!
    }

    private mutating func take(_ memory: consuming Mapping) {
        room = memory.count
        unsafe faults = memory.unsafeBaseAddress.assumingMemoryBound(to: PendingFault.self)
        self.memory = consume memory
    }

    /// A list whose room is there.
    init(capacity: Int) throws(UserfaultError) {
        self.capacity = capacity
        unsafe faults = Self.nowhere
        take(try Mapping(anonymous: capacity * MemoryLayout<PendingFault>.stride))
    }

    /// - Returns: Whether there is room for one more.
    private mutating func grow() -> Bool {
        guard count < capacity else { return false }
        guard room < (count + 1) * MemoryLayout<PendingFault>.stride else { return true }
        guard let larger = try? Mapping(anonymous: max(PageSize.base.bytes, 2 * room)) else { return false }
        if count > 0 {
            unsafe larger.unsafeBaseAddress.copyMemory(
                from: faults, byteCount: count * MemoryLayout<PendingFault>.stride)
        }
        take(larger)
        return true
    }

    var isEmpty: Bool { count == 0 }

    subscript(index: Int) -> PendingFault { unsafe faults[index] }

    /// - Returns: `false` where there is no room.
    mutating func append(_ fault: PendingFault) -> Bool {
        guard grow() else { return false }
        unsafe (faults + count).initialize(to: fault)
        count += 1
        return true
    }

    mutating func removeAll() {
        count = 0
    }

    mutating func removeLast() { count -= 1 }

    /// Takes faults out, without taking memory.
    mutating func removeAll(where isTaken: (PageFault) -> Bool) {
        var left = 0
        for index in 0..<count {
            let pending = unsafe faults[index]
            if isTaken(pending.fault) { continue }
            unsafe faults[left] = pending
            left += 1
        }
        count = left
    }

    /// Takes the first fault that is due, or `nil`.
    mutating func takeDue(at now: UInt64) -> PendingFault? {
        for index in 0..<count where unsafe faults[index].due <= now {
            let found = unsafe faults[index]
            for later in index + 1..<max(index + 1, count) { unsafe faults[later - 1] = faults[later] }
            count -= 1
            return found
        }
        return nil
    }

    /// When the next fault is due, or `nil` where there is none.
    var nextDue: UInt64? {
        var next: UInt64?
        for index in 0..<count { next = unsafe min(next ?? .max, faults[index].due) }
        return next
    }
}
