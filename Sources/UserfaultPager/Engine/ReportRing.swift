internal import Synchronization
internal import UserfaultFD

// Any thread puts reports in, the reporter takes them out.

/// Reports on their way to the user.
///
/// What does not fit is dropped: the first ones say what went wrong.
@safe
final class ReportRing: @unchecked Sendable {
    /// How many there are.
    private let count = Mutex(0)
    /// Read and written with the lock of the count.
    private let reports: UnsafeMutableBufferPointer<PagerReport>
    private let capacity: Int
    /// What the reporter waits for.
    private let signals: SharedFutex
    /// Reports that were put in and not delivered.
    private let outstanding = Atomic<Int>(0)

    init(capacity: Int = 256, signals: SharedFutex) {
        self.capacity = capacity
        self.signals = signals
        unsafe reports = .allocate(capacity: capacity)
    }

    deinit {
        // Without the lock: in a child of a fork, a thread of the parent's may have it for ever.
        unsafe reports.deallocate()
    }

    /// Leaves a report, without waiting for anybody and without memory.
    func put(_ report: PagerReport) {
        self.count.withLock { count in
            guard count < capacity else { return }
            unsafe reports.initializeElement(at: count, to: report)
            count += 1
            outstanding.add(1, ordering: .relaxed)
        }
        signals.signal()
    }

    /// Whether all was delivered.
    var isDelivered: Bool { outstanding.load(ordering: .acquiring) == 0 }

    /// Says that reports that were taken are delivered.
    func noteDelivered(_ count: Int) {
        outstanding.subtract(count, ordering: .releasing)
        signals.signal()
    }

    /// Takes all reports.
    func takeAll() -> [PagerReport] {
        guard count.withLock(\.self) > 0 else { return [] }
        // The memory is taken before the lock: who leaves a report may have to go on for a fork that holds the heap.
        return unsafe [PagerReport](unsafeUninitializedCapacity: capacity) { taken, takenCount in
            takenCount = count.withLock { count in
                defer { count = 0 }
                for index in 0..<count { unsafe taken.initializeElement(at: index, to: reports[index]) }
                return count
            }
        }
    }
}
