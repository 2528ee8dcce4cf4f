internal import Synchronization
internal import UserfaultFD

/// Zeros of this process, for pages that cannot be had from `UFFDIO_ZEROPAGE`: any thread may copy from them.
struct ZeroMemory: ~Copyable, Sendable {
    private let small: Mapping
    private let large = Mutex<AddressRange?>(nil)
    private let start: Atomic<UInt>
    private let count: Atomic<Int>

    init() throws(UserfaultError) {
        let small = try Mapping(anonymous: PageSize.twoMiB.bytes, protection: .read, options: .noReserve)
        start = Atomic(small.range.start)
        count = Atomic(small.count)
        self.small = small
    }

    deinit {
        if let large = large.withLock(\.self) { unsafe try? AddressSpace.unmap(large) }
    }

    /// At least one page of every region.
    var range: AddressRange {
        // In this order: the larger ones are there before their count is.
        let count = count.load(ordering: .acquiring)
        return AddressRange(start: start.load(ordering: .relaxed), count: count)
    }

    /// Sees to it that there is a page of a size.
    func reserve(_ size: PageSize) throws(PagerError) {
        guard size.bytes > count.load(ordering: .relaxed) else { return }
        let result = large.withLock { large -> Result<Void, UserfaultError> in
            guard large == nil else { return .success(()) }
            // One for all sizes that there are: address space, and no memory.
            do throws(UserfaultError) {
                let mapping = try Mapping(
                    anonymous: max(size.bytes, PageSize.oneGiB.bytes), protection: .read, options: .noReserve)
                let range = mapping.release()
                large = range
                start.store(range.start, ordering: .relaxed)
                count.store(range.count, ordering: .releasing)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        if case .failure(let error) = result { throw .kernel(error) }
    }
}
