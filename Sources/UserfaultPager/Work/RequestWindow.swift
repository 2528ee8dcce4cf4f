internal import Synchronization

// Asked by whoever looks for a piece of a job, told by whoever makes or settles a request. Knows no clock.

/// How many requests for which no thread waits may be outstanding at a source that completes them later.
///
/// Whatever is outstanding is in front of the next fault: on the way to the server, in the server, and on the way back. So
/// there are few while a thread waits for a page of the source. While none does, there is one more for each that is
/// settled.
final class RequestWindow: Sendable {
    private let most: Int
    private let size: Atomic<Int>
    /// Requests, and threads that are about to make one.
    private let open = Atomic<Int>(0)
    /// Requests for which a thread waits.
    private let demand = Atomic<Int>(0)
    /// A loader found it closed.
    private let isAwaited = Atomic<Bool>(false)

    /// How many there may be while a thread waits.
    static var least: Int { 4 }

    init(most: Int) {
        self.most = most
        size = Atomic(most)
    }

    /// Begins a piece, if there are not too many.
    func enter() -> Bool {
        while true {
            let before = open.load(ordering: .sequentiallyConsistent)
            if before < size.load(ordering: .sequentiallyConsistent) {
                let (exchanged, _) = open.compareExchange(
                    expected: before, desired: before + 1, ordering: .sequentiallyConsistent)
                if exchanged { return true }
                continue
            }
            // Said before it is looked again: whoever leaves afterwards sees it.
            isAwaited.store(true, ordering: .sequentiallyConsistent)
            let isOpen = open.load(ordering: .sequentiallyConsistent) < size.load(ordering: .sequentiallyConsistent)
            guard isOpen else { return false }
        }
    }

    /// A piece is over, or a request.
    ///
    /// - Returns: Whether a loader is to look again.
    func leave() -> Bool {
        let left = open.subtract(1, ordering: .sequentiallyConsistent).newValue
        let size = size.load(ordering: .sequentiallyConsistent)
        // Several at a time: waking a loader takes longer than making a request.
        guard left <= size - max(1, size / 4) else { return false }
        return isAwaited.exchange(false, ordering: .sequentiallyConsistent)
    }

    /// How many requests there may be besides, if it is worth to ask for more: an eighth is missing.
    var room: Int {
        let size = size.load(ordering: .relaxed)
        let missing = size - open.load(ordering: .relaxed)
        return missing >= max(1, size / 8) ? missing : 0
    }

    /// A request is made.
    func begin(isDemand: Bool) {
        guard isDemand else {
            open.add(1, ordering: .sequentiallyConsistent)
            return
        }
        demand.add(1, ordering: .sequentiallyConsistent)
        size.store(min(Self.least, most), ordering: .sequentiallyConsistent)
    }

    /// A request is settled.
    ///
    /// - Returns: Whether a loader is to look again.
    func end(isDemand: Bool) -> Bool {
        guard !isDemand else {
            demand.subtract(1, ordering: .sequentiallyConsistent)
            return false
        }
        if demand.load(ordering: .sequentiallyConsistent) == 0 {
            let before = size.load(ordering: .relaxed)
            if before < most {
                // Another thread may have changed it: then that counts.
                _ = size.compareExchange(
                    expected: before, desired: before + 1, ordering: .sequentiallyConsistent)
            }
        }
        return leave()
    }
}
