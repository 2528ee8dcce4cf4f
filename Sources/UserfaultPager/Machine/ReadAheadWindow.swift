internal import Synchronization

/// How many pages to fill behind a fault: more and more of them while faults are sequential.
///
/// Several threads may use one window; what one of them writes over another's is a worse guess and nothing more.
struct ReadAheadWindow: ~Copyable {
    let maximum: Int
    private let pages = Atomic<Int>(0)
    private let expected = Atomic<Int>(-1)

    /// The first window after two sequential faults.
    private static let initial = 4

    init(maximum: Int) {
        self.maximum = maximum
    }

    /// Counts a fault, and answers how many pages to fill behind it.
    ///
    /// - Parameter page: The number of the page in its source.
    @inline(__always)
    func next(page: Int) -> Int {
        guard maximum > 0 else { return 0 }
        let before = pages.load(ordering: .relaxed)
        let next = expected.load(ordering: .relaxed)
        // A page within the last window counts as well: threads that share the work reach it out of order.
        let isSequential = page >= next - before && page <= next + 1
        let window = isSequential ? min(maximum, max(Self.initial, before * 2)) : before / 4
        pages.store(window, ordering: .relaxed)
        expected.store(page + window + 1, ordering: .relaxed)
        return window
    }
}
