public import UserfaultFD

extension Pager where Source: ~Copyable {
    /// Calls with pages there, for system calls that access the memory of a pager that serves in the thread that faults.
    ///
    /// Such an access by the kernel (`read(2)` into the memory, `write(2)` from it, a futex in it) cannot be served: it
    /// answers `EFAULT` where a page is not there. With the other services nothing of the kind is needed, but it does no
    /// harm.
    ///
    /// A page that the program drops (`madvise`) while the call lasts is not brought back for it. Pages that are
    /// write-protected stay so, and the kernel's writes to them answer `EFAULT` too: touch them first.
    ///
    /// - Parameters:
    ///   - range: Memory of regions of this pager; rounded to whole pages.
    ///   - body: What to call.
    /// - Throws: ``PagerError/noSuchRegion`` if a part of it is in no region, ``PagerError/pagesFailed(_:)`` if the source
    ///   failed and the ``FailurePolicy`` was applied, ``PagerError/notRunning``.
    public func withPagesPresent<Result: ~Copyable>(
        _ range: AddressRange, _ body: () throws -> Result
    ) throws -> Result {
        try core.whileOpen { () throws(PagerError) in try core.fetch(range) }
        return try body()
    }
}
