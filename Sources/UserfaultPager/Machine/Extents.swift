internal import UserfaultFD

/// Where in its source a region has data: whole pages, in order, which do not adjoin each other.
///
/// All else is zeros. Any thread may ask, with no lock and no reference counted.
@safe
struct Extents: ~Copyable, @unchecked Sendable {
    private let extents: UnsafeMutableBufferPointer<Range<Int>>
    /// Whether there are pages without data.
    let haveHoles: Bool

    /// Data everywhere.
    init() {
        unsafe extents = .allocate(capacity: 0)
        haveHoles = false
    }

    /// Asks until the end of a region.
    ///
    /// - Parameters:
    ///   - bytes: The region's part of the source: whole pages.
    ///   - next: The first bytes of data that end after an offset.
    init(of bytes: Range<Int>, _ pageSize: PageSize, _ next: (Int) -> Range<Int>?) {
        var found: [Range<Int>] = []
        var offset = bytes.lowerBound
        while offset < bytes.upperBound, let extent = next(offset), extent.lowerBound < bytes.upperBound {
            let start = max(offset, extent.lowerBound) & ~(pageSize.bytes - 1)
            // What ends no further on would be found again and again: data, for want of a better answer.
            let end =
                extent.upperBound > offset
                ? pageSize.roundUp(min(extent.upperBound, bytes.upperBound)) : bytes.upperBound
            if let last = found.last, last.upperBound >= start {
                found[found.count - 1] = last.lowerBound..<end
            } else {
                found.append(start..<end)
            }
            offset = end
        }
        haveHoles = found != [bytes]
        unsafe extents = .allocate(capacity: haveHoles ? found.count : 0)
        if haveHoles { _ = unsafe extents.initialize(from: found) }
    }

    deinit {
        unsafe extents.deallocate()
    }

    /// The first data that ends after an offset; `nil` if only zeros follow.
    func next(from offset: Int) -> Range<Int>? {
        guard haveHoles else { return offset..<Int.max }
        var low = 0
        var high = unsafe extents.count
        while low < high {
            let middle = (low + high) / 2
            if unsafe extents[middle].upperBound > offset { high = middle } else { low = middle + 1 }
        }
        return unsafe low < extents.count ? extents[low] : nil
    }
}
