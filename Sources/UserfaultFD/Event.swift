/// A message of the kernel: a page fault, or a change of the address space.
///
/// Noncopyable, because a fork event owns the child's descriptor: an event that nobody takes closes it.
public enum Event: ~Copyable, Sendable {
    /// A thread waits for a page.
    ///
    /// The corresponding C constant is `UFFD_EVENT_PAGEFAULT`. Available since Linux 4.3.
    case pagefault(PageFault)

    /// The process has forked; the child's registrations belong to the descriptor given here.
    ///
    /// It is negotiated already, and the thread that forked goes on. The corresponding C constant is `UFFD_EVENT_FORK`.
    /// Available since Linux 4.11.
    case fork(UserfaultFD)

    /// A registered mapping has moved. `count` is its old length, in bytes.
    ///
    /// The corresponding C constant is `UFFD_EVENT_REMAP`. Available since Linux 4.11.
    case remap(from: UInt, to: UInt, count: Int)

    /// Pages are about to be dropped by `madvise`: faults in the range are to be answered with zeros from now on.
    ///
    /// The corresponding C constant is `UFFD_EVENT_REMOVE`. Available since Linux 4.11.
    case remove(AddressRange)

    /// A range was unmapped; it may hold memory that was never registered.
    ///
    /// The corresponding C constant is `UFFD_EVENT_UNMAP`. Available since Linux 4.11.
    case unmap(AddressRange)

    /// An event that this library does not know, with the kernel's number of it.
    case unknown(UInt8)
}
