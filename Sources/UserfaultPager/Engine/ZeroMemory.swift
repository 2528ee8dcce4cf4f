internal import Synchronization
internal import UserfaultFD

// Any thread may copy from it.

/// Zeros, for pages that cannot be had from `UFFDIO_ZEROPAGE`: one mapping for all pagers of the process, which stays.
struct ZeroMemory: Sendable {
    private static let mapped = Mutex(0)
    private static let start = Atomic<UInt>(0)
    private static let count = Atomic<Int>(0)

    init() throws(UserfaultError) {
        try Self.map(PageSize.twoMiB.bytes)
    }

    /// At least one page of every region.
    var range: AddressRange {
        // In this order: the larger ones are there before their count is.
        let count = Self.count.load(ordering: .acquiring)
        return AddressRange(start: Self.start.load(ordering: .relaxed), count: count)
    }

    /// Sees to it that there is a page of a size.
    func reserve(_ size: PageSize) throws(PagerError) {
        guard size.bytes > Self.count.load(ordering: .relaxed) else { return }
        // One for all sizes that there are: address space, and no memory.
        try asPagerError { () throws(UserfaultError) in try Self.map(max(size.bytes, PageSize.oneGiB.bytes)) }
    }

    /// Maps more if there is less; what is there stays, because others may copy from it.
    private static func map(_ bytes: Int) throws(UserfaultError) {
        let result = mapped.withLock { mapped -> Result<Void, UserfaultError> in
            guard mapped < bytes else { return .success(()) }
            do throws(UserfaultError) {
                let range = try Mapping(anonymous: bytes, protection: .read, options: .noReserve).release()
                mapped = bytes
                start.store(range.start, ordering: .relaxed)
                count.store(range.count, ordering: .releasing)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}
