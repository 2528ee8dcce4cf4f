/// What a pager has done so far, and how long it took.
///
/// A snapshot: the numbers were read one after the other while the threads went on. They only grow, but for
/// ``outstanding`` and ``queued``.
public struct PagerStatistics: Hashable, Sendable {
    /// Faults of pages that were not there.
    public internal(set) var missingFaults: UInt64 = 0
    /// Faults of pages that the file has.
    public internal(set) var minorFaults: UInt64 = 0
    /// First writes to protected pages.
    public internal(set) var writeProtectFaults: UInt64 = 0
    /// Forks and changes of the address space.
    public internal(set) var events: UInt64 = 0

    /// Pages filled by `UFFDIO_COPY`.
    public internal(set) var pagesCopied: UInt64 = 0
    /// Pages filled with zeros.
    public internal(set) var pagesZeroed: UInt64 = 0
    /// Pages mapped by `UFFDIO_CONTINUE`.
    public internal(set) var pagesContinued: UInt64 = 0
    /// Pages moved in by `UFFDIO_MOVE`.
    public internal(set) var pagesMoved: UInt64 = 0
    /// Pages that were given up.
    public internal(set) var pagesPoisoned: UInt64 = 0
    /// Pages of the above that nobody waited for.
    public internal(set) var pagesReadAhead: UInt64 = 0
    /// Bytes filled, by whatever call.
    public internal(set) var bytesFilled: UInt64 = 0

    /// How often the source was asked again after a failure.
    public internal(set) var retries: UInt64 = 0
    /// Pages that failed for good.
    public internal(set) var failures: UInt64 = 0
    /// Fills that found the page there (`EEXIST`).
    public internal(set) var alreadyMapped: UInt64 = 0
    /// Fills that had to wait for an event (`EAGAIN`).
    ///
    /// The kernel refuses all fills while a thread of the program is inside `madvise`, `munmap`, `mremap` or `fork` and its event
    /// is reported. Two threads that do nothing but drop memory leave no moment for a fill: others then wait for their pages.
    public internal(set) var mappingWasChanging: UInt64 = 0
    /// Faults at addresses of no region; not those in memory that a region's mapping has grown by.
    public internal(set) var strayFaults: UInt64 = 0

    /// Faults that are being served.
    public internal(set) var outstanding = 0
    /// Faults that wait for a thread.
    public internal(set) var queued = 0

    /// How long the source took.
    public internal(set) var load = LatencyHistogram()
    /// How long the kernel took to fill.
    public internal(set) var fill = LatencyHistogram()
    /// From the reading of a fault to its resolution.
    public internal(set) var service = LatencyHistogram()

    /// Nothing done yet.
    public init() {}

    /// Faults of every kind.
    public var faults: UInt64 { missingFaults + minorFaults + writeProtectFaults }
}
