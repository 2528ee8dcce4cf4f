/// A message of the kernel: a page fault, or a change of the address space.
///
/// Noncopyable, because a fork event owns the child's descriptor: an event that you do not take closes it. Events may be
/// added: a `switch` that names all of them includes an `@unknown default` case.
@nonexhaustive
public enum Event: ~Copyable, Sendable {
    /// A thread waits for a page.
    ///
    /// The corresponding C constant is `UFFD_EVENT_PAGEFAULT`. Available since Linux 4.3.
    case pagefault(PageFault)

    /// The process has forked; the child's registrations belong to the descriptor given here.
    ///
    /// It is negotiated already, and the thread that forked goes on. Keep it in a ``DescriptorTable``, which needs no
    /// memory from the heap. The corresponding C constant is `UFFD_EVENT_FORK`. Available since Linux 4.11.
    case fork(UserfaultFD)

    /// A registered mapping has moved. `count` is its old length, in bytes.
    ///
    /// The corresponding C constant is `UFFD_EVENT_REMAP`. Available since Linux 4.11.
    case remap(from: UInt, to: UInt, count: Int)

    /// Pages are about to be dropped by `madvise`: from now on, answer faults in the range with zeros.
    ///
    /// The corresponding C constant is `UFFD_EVENT_REMOVE`. Available since Linux 4.11.
    case remove(AddressRange)

    /// A range was unmapped; it may hold memory that was never registered.
    ///
    /// The corresponding C constant is `UFFD_EVENT_UNMAP`. Available since Linux 4.11.
    case unmap(AddressRange)

    /// An event that this library does not know.
    case unknown(UnknownEvent)
}

/// An event of a kernel that is newer than this library.
public struct UnknownEvent: Hashable, Sendable {
    /// The kernel's number of it.
    public let number: UInt8
    /// The message's payload: its bytes 8 to 31, as the kernel's words.
    public let words: InlineArray<3, UInt64>

    init(number: UInt8, words: InlineArray<3, UInt64>) {
        self.number = number
        self.words = words
    }

    /// Whether both have the same number and payload.
    public static func == (lhs: UnknownEvent, rhs: UnknownEvent) -> Bool {
        lhs.number == rhs.number && lhs.words.indices.allSatisfy { lhs.words[$0] == rhs.words[$0] }
    }

    /// Feeds the number and the payload to a hasher.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(number)
        for index in words.indices { hasher.combine(words[index]) }
    }
}
