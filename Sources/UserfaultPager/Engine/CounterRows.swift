internal import Synchronization

// Written by the threads that serve, read by any.

/// What is counted.
enum Counter: Int, CaseIterable {
    case missing, minor, writeProtect, events
    case copied, zeroed, continued, moved, poisoned, readAhead, bytes
    case retries, failures, alreadyMapped, changing, strays
}

/// Counters that many threads write, each in a row of its own: none of them waits for another's processor.
@safe
struct CounterRows: @unchecked Sendable {
    private let first: UnsafeMutablePointer<Atomic<UInt64>>

    private static var rowBytes: Int { 16 * MemoryLayout<UInt64>.size }
    static var bytes: Int { (CounterRow.shared + 1) * rowBytes }

    /// - Parameter memory: Zeroed memory, ``bytes`` of it.
    @unsafe init(_ memory: UnsafeMutableRawPointer) {
        unsafe first = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    func count(_ counter: Counter, _ amount: Int, in row: Int) {
        let place = unsafe first + (row &* 16 &+ counter.rawValue)
        if row == CounterRow.shared {
            unsafe place.pointee.add(UInt64(amount), ordering: .relaxed)
        } else {
            unsafe place.pointee.increase(by: UInt64(amount))
        }
    }

    func sum(_ counter: Counter) -> UInt64 {
        (0...CounterRow.shared).reduce(0) { sum, row in
            sum &+ (unsafe first[row * 16 + counter.rawValue].load(ordering: .relaxed))
        }
    }
}

/// Which row a thread counts in: its own as long as it serves, in the whole process.
///
/// The benches of threads that serve their own faults have rows from the first fault on.
enum CounterRow {
    /// The row of threads for which no other was left.
    static let shared = 63

    private static let taken = Atomic<UInt64>(1 << UInt64(shared))

    /// In a signal handler too: without a lock.
    static func take() -> Int {
        var before = taken.load(ordering: .relaxed)
        while true {
            let row = (~before).trailingZeroBitCount
            guard row < shared else { return shared }
            let result = taken.compareExchange(
                expected: before, desired: before | 1 << UInt64(row), ordering: .acquiringAndReleasing)
            if result.exchanged { return row }
            before = result.original
        }
    }

    static func giveBack(_ row: Int) {
        guard row != shared else { return }
        taken.bitwiseAnd(~(1 << UInt64(row)), ordering: .releasing)
    }
}

extension PagerStatistics {
    /// Adds what was counted.
    mutating func add(_ counted: (Counter) -> UInt64) {
        missingFaults += counted(.missing)
        minorFaults += counted(.minor)
        writeProtectFaults += counted(.writeProtect)
        events += counted(.events)
        pagesCopied += counted(.copied)
        pagesZeroed += counted(.zeroed)
        pagesContinued += counted(.continued)
        pagesMoved += counted(.moved)
        pagesPoisoned += counted(.poisoned)
        pagesReadAhead += counted(.readAhead)
        bytesFilled += counted(.bytes)
        retries += counted(.retries)
        failures += counted(.failures)
        alreadyMapped += counted(.alreadyMapped)
        mappingWasChanging += counted(.changing)
        strayFaults += counted(.strays)
    }
}
