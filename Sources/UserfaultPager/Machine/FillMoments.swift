internal import Synchronization
internal import UserfaultFD

// Written by the threads that fill pages, read by those that look pages up; none of them waits here.

/// When pages were filled last.
///
/// Asked of a page that was filled, only to tell a message that was read before from one that was read since. Pages share
/// places: one is then taken to have been filled later than it was, and a thread that needs it looks again once more.
struct FillMoments: ~Copyable {
    private let memory: Mapping

    private static var places: UInt { 1024 }

    /// Takes memory by `mmap` only.
    init() throws(UserfaultError) {
        memory = try Mapping(anonymous: Int(Self.places) * MemoryLayout<UInt64>.size, options: .noReserve)
    }

    @inline(__always)
    private func place(of page: UInt) -> UnsafeMutablePointer<Atomic<UInt64>> {
        let first = unsafe memory.unsafeBaseAddress.assumingMemoryBound(to: Atomic<UInt64>.self)
        return unsafe first + Int(page & (Self.places - 1))
    }

    /// Notes that a page was filled; before its state says so.
    ///
    /// Two threads may do so at once, and the later moment be lost. A message is then left to ``PageState/doubted``.
    @inline(__always)
    func note(_ moment: UInt64, of page: UInt) {
        unsafe place(of: page).pointee.store(moment, ordering: .relaxed)
    }

    /// Whether a message that was read at a moment may belong to a thread that the fill of its page has woken.
    func mayAnswer(messageReadAt moment: UInt64, of page: UInt) -> Bool {
        unsafe place(of: page).pointee.load(ordering: .relaxed) >= moment
    }
}
