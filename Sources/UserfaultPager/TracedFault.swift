public import UserfaultFD

/// One attempt to serve a fault, as a pager's trace has it.
///
/// See ``Pager/tracedFaults(after:)``.
public struct TracedFault: Hashable, Sendable {
    /// How the attempt ended.
    public enum Ending: UInt8, Hashable, Sendable {
        /// The page was filled.
        case filled
        /// The protection was taken away.
        case unprotected
        /// There was nothing to do: the page was there, another thread had it in hand, or its region is still to come.
        case nothingToDo
        /// The page is lost: the ``FailurePolicy`` was applied.
        case failed
        /// The page is not mapped any more.
        case unmapped
        /// It is to be tried again: the source failed, or the address space was changing.
        case postponed
        /// The process whose memory it is has ended.
        case ownerGone
    }

    /// Counts attempts from 1 on, in the order in which they ended.
    public let number: UInt64

    /// When the fault was read, in nanoseconds of `CLOCK_MONOTONIC`.
    public let time: UInt64

    /// The fault: its address, its kind, and its thread if the descriptor has `UserfaultFD.Features.threadID`.
    public let fault: PageFault

    /// The region's ``Region/id``, or `nil` for an address of no region.
    public let regionID: Int?

    /// How it ended.
    public let ending: Ending

    /// How often it had been tried before.
    public let earlierAttempts: Int

    /// How long the source took, in nanoseconds; 0 if it was not asked.
    public let load: UInt64

    /// How long the kernel took to fill the page, in nanoseconds; 0 if it was not filled.
    public let fill: UInt64

    /// From the reading of the fault to the end of the attempt, in nanoseconds, with the time that it waited for a thread.
    public let service: UInt64
}
