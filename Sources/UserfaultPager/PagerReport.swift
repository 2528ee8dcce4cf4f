/// What a pager has to report beside its answers: never given on a thread that serves faults.
public enum PagerReport: Hashable, Sendable {
    /// A fault has been outstanding for longer than ``PagerConfiguration/stuckAfter``: reported once, and again whenever
    /// its time has doubled. Of the faults that wait for a worker, the oldest.
    case stuck(address: UInt, nanoseconds: UInt64)

    /// The kernel holds faults that no thread of the pager takes: how many. Reported again when twice as many looks of
    /// the watchdog have found it so.
    case unread(Int)

    /// A thread of the pager waits for a page that only the pager can bring: its source touched served memory. The page
    /// is poisoned, whatever the region's ``FailurePolicy`` says, so that the thread gets `SIGBUS`; where that cannot be
    /// done, the process is killed. A thread that serves its own faults has got the signal already.
    ///
    /// Noticed only with `UserfaultFD.Features.threadID`: without it nobody knows the thread, and it waits for ever.
    case selfDeadlock(thread: Int32, address: UInt)

    /// A source was asked for this page and took longer than ``PagerConfiguration/sourceTimeout``: the page failed.
    case timedOut(address: UInt)

    /// A page failed for good: the failure policy was applied.
    case failed(address: UInt)

    /// The process whose memory it is has ended.
    case ownerGone

    /// A fork was not followed, because there was no place for the child (``PagerConfiguration/maximumChildren``) or no
    /// memory: what it had not loaded is poisoned.
    case forkLost

    /// A fork has waited for a second, because this process has no descriptor free for the child (`RLIMIT_NOFILE`). It
    /// waits until there is one; other faults and events of its process wait with it. If it is a fork of this process,
    /// which holds the heap, the report comes afterwards.
    case forkWaits
}
