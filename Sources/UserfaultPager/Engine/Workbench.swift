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

    /// The most bytes that a source is asked for at once.
    static let stagingBytes = 2 << 20

    init(_ record: ThreadRecord = .nobodys) throws(UserfaultError) {
        let staging = try Mapping(anonymous: Self.stagingBytes)
        self.staging = staging
        self.record = record
    }

    /// Makes sure that one page of a region fits.
    mutating func reserve(_ bytes: Int) throws(UserfaultError) {
        if staging.count < bytes { staging = try Mapping(anonymous: bytes) }
    }
}
