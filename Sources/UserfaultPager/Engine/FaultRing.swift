internal import Synchronization
internal import UserfaultFD

// Whoever serves writes, any thread reads; neither waits for the other.

/// The faults that were served last, in room that was mapped before.
///
/// A place is written between two stores to its stamp: its number doubled, and one more while it is being written. A
/// reader that sees the same even stamp before and after has read what belongs together.
@safe
struct FaultRing: ~Copyable, Sendable {
    private static var wordsPerFault: Int { 8 }

    private let memory: Mapping
    private let capacity: Int
    private let last = Atomic<UInt64>(0)

    /// - Parameter capacity: How many faults are kept; 0 for none.
    init(capacity: Int) throws(UserfaultError) {
        self.capacity = capacity
        memory = try Mapping(anonymous: max(1, capacity) * Self.wordsPerFault * 8, options: .noReserve)
    }

    /// Whether faults are kept.
    @inline(__always)
    var isOn: Bool { capacity > 0 }

    /// Keeps a fault, under the next number.
    ///
    /// One that finds its place being written, by a thread that is a whole ring behind, is lost.
    @inline(never)
    borrowing func put(_ fault: TracedFault) {
        let number = last.add(1, ordering: .relaxed).newValue
        guard let place = unsafe place(of: number) else { return }
        let before = unsafe place[0].load(ordering: .relaxed)
        guard before & 1 == 0, before < number << 1,
            unsafe place[0].compareExchange(
                expected: before, desired: number << 1 | 1, ordering: .acquiringAndReleasing
            ).exchanged
        else { return }
        let flags = UInt64(UInt32(truncatingIfNeeded: fault.fault.flags.rawValue))
        let attempts = UInt64(min(fault.earlierAttempts, Int(UInt16.max)))
        // Releasing, each: who sees a word sees the stamp that was before it.
        unsafe place[1].store(fault.time, ordering: .releasing)
        unsafe place[2].store(UInt64(fault.fault.address), ordering: .releasing)
        unsafe place[3].store(UInt64(fault.fault.threadID) << 32 | flags, ordering: .releasing)
        unsafe place[4].store(
            UInt64(fault.regionID ?? 0) << 24 | attempts << 8 | UInt64(fault.ending.rawValue), ordering: .releasing)
        unsafe place[5].store(fault.load, ordering: .releasing)
        unsafe place[6].store(fault.fill, ordering: .releasing)
        unsafe place[7].store(fault.service, ordering: .releasing)
        unsafe place[0].store(number << 1, ordering: .releasing)
    }

    /// What is kept, the oldest first.
    borrowing func faults(after number: UInt64) -> [TracedFault] {
        let newest = last.load(ordering: .acquiring)
        let oldest = max(number, newest > UInt64(capacity) ? newest - UInt64(capacity) : 0)
        guard oldest < newest else { return [] }
        return (oldest + 1...newest).compactMap { fault($0) }
    }

    private borrowing func fault(_ number: UInt64) -> TracedFault? {
        guard let place = unsafe place(of: number), unsafe place[0].load(ordering: .acquiring) == number << 1 else {
            return nil
        }
        // Acquiring, each: none of them is read after the stamp is looked at again.
        let words = (1..<Self.wordsPerFault).map { unsafe place[$0].load(ordering: .acquiring) }
        guard unsafe place[0].load(ordering: .relaxed) == number << 1 else { return nil }
        guard let ending = TracedFault.Ending(rawValue: UInt8(truncatingIfNeeded: words[3])) else { return nil }
        let fault = PageFault(
            address: UInt(words[1]), flags: PageFault.Flags(rawValue: words[2] & 0xffff_ffff),
            threadID: UInt32(words[2] >> 32))
        let region = Int(words[3] >> 24)
        return TracedFault(
            number: number, time: words[0], fault: fault, regionID: region == 0 ? nil : region, ending: ending,
            earlierAttempts: Int(words[3] >> 8 & 0xffff), load: words[4], fill: words[5], service: words[6])
    }

    private borrowing func place(of number: UInt64) -> UnsafeMutablePointer<Atomic<UInt64>>? {
        guard capacity > 0 else { return nil }
        let index = Int((number - 1) % UInt64(capacity)) * Self.wordsPerFault
        return unsafe (memory.unsafeBaseAddress + index * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
