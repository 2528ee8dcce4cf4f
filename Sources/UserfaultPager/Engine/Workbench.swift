internal import Synchronization
internal import UserfaultFD

// Of one thread.

/// What a thread needs to serve: all of it allocated before the first fault, none of it ever served itself.
struct Workbench: ~Copyable {
    /// Where the source puts its pages.
    private(set) var staging: Mapping
    /// What the thread counts with for the pager that it works for.
    var record: ThreadRecord
    /// Whether the thread may wait for a source: not one that also serves other pagers' faults.
    var mayWait = true
    /// The thread's id, of a loader.
    var thread: Int32 = 0

    /// It is one of the few that keep their staging's memory.
    private var keepsStaging = false

    /// The most bytes that a source is asked for at once.
    static let stagingBytes = 2 << 20

    init(_ record: ThreadRecord = .nobodys) throws(UserfaultError) {
        let staging = try Mapping(anonymous: Self.stagingBytes, options: .noReserve)
        self.staging = staging
        self.record = record
    }

    deinit {
        if keepsStaging { Self.keepers.subtract(1, ordering: .relaxed) }
    }

    // MARK: Benches of seats

    /// As many bytes as nearly every fault needs, which each bench keeps.
    static var usualBytes: Int { 128 << 10 }
    /// How many benches of a process keep more between two faults, of those that belong to seats: there are many seats, and a
    /// thread that comes back has nearly always the same one.
    static var mostKeepers: Int { 16 }
    private static let keepers = Atomic<Int>(0)

    /// Gives back the memory of a staging that much was loaded into, unless few others keep theirs.
    @inline(never)
    mutating func giveBackStaging() {
        if staging.count <= Self.stagingBytes {
            if keepsStaging { return }
            if Self.keepers.add(1, ordering: .relaxed).newValue <= Self.mostKeepers {
                keepsStaging = true
                return
            }
            Self.keepers.subtract(1, ordering: .relaxed)
        }
        try? staging.advise(.dontNeed, staging.range.dropFirst(Self.usualBytes))
    }

    /// Makes sure that one page of a region fits.
    mutating func reserve(_ bytes: Int) throws(UserfaultError) {
        if staging.count < bytes { staging = try Mapping(anonymous: bytes, options: .noReserve) }
    }
}
