internal import CUserfaultFD
internal import SystemPackage

/// What `madvise(2)` is told of memory.
public struct Advice: RawRepresentable, Hashable, Sendable {
    /// The kernel's bits, those that this library does not know included.
    public let rawValue: Int32

    /// A set of the kernel's bits, whatever they are.
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Drops the pages: anonymous memory reads as zeros again, a file's as the file.
    ///
    /// Makes ``Event/remove(_:)``.
    ///
    /// The corresponding C constant is `MADV_DONTNEED`.
    public static var dontNeed: Advice { Advice(rawValue: 4) }
    /// Drops the pages when memory is short.
    ///
    /// Makes ``Event/remove(_:)``.
    ///
    /// The corresponding C constant is `MADV_FREE`.
    public static var free: Advice { Advice(rawValue: 8) }
    /// Drops the pages and their place in the file.
    ///
    /// Makes ``Event/remove(_:)``.
    ///
    /// The corresponding C constant is `MADV_REMOVE`.
    public static var remove: Advice { Advice(rawValue: 9) }
    /// Leaves the memory out of a child: what the source of ``UserfaultFD/move(from:to:options:)`` wants.
    ///
    /// The corresponding C constant is `MADV_DONTFORK`.
    public static var dontFork: Advice { Advice(rawValue: 10) }
    /// Undoes ``dontFork``.
    ///
    /// The corresponding C constant is `MADV_DOFORK`.
    public static var doFork: Advice { Advice(rawValue: 11) }
    /// Lets equal pages be merged.
    ///
    /// The corresponding C constant is `MADV_MERGEABLE`.
    public static var mergeable: Advice { Advice(rawValue: 12) }
    /// Undoes ``mergeable``.
    ///
    /// The corresponding C constant is `MADV_UNMERGEABLE`.
    public static var unmergeable: Advice { Advice(rawValue: 13) }
    /// Prefers transparent huge pages.
    ///
    /// The corresponding C constant is `MADV_HUGEPAGE`.
    public static var hugePage: Advice { Advice(rawValue: 14) }
    /// Never uses transparent huge pages.
    ///
    /// The corresponding C constant is `MADV_NOHUGEPAGE`.
    public static var noHugePage: Advice { Advice(rawValue: 15) }
    /// Leaves the memory out of core dumps.
    ///
    /// The corresponding C constant is `MADV_DONTDUMP`.
    public static var dontDump: Advice { Advice(rawValue: 16) }
    /// Swaps the pages out now.
    ///
    /// Available since Linux 5.4.
    ///
    /// The corresponding C constant is `MADV_PAGEOUT`.
    public static var pageOut: Advice { Advice(rawValue: 21) }
    /// Brings the pages in for reading.
    ///
    /// Available since Linux 5.14.
    ///
    /// The corresponding C constant is `MADV_POPULATE_READ`.
    public static var populateRead: Advice { Advice(rawValue: 22) }
    /// Brings the pages in for writing.
    ///
    /// Available since Linux 5.14.
    ///
    /// The corresponding C constant is `MADV_POPULATE_WRITE`.
    public static var populateWrite: Advice { Advice(rawValue: 23) }
    /// As ``dontNeed``, for locked memory too.
    ///
    /// Available since Linux 5.18.
    ///
    /// The corresponding C constant is `MADV_DONTNEED_LOCKED`.
    public static var dontNeedLocked: Advice { Advice(rawValue: 24) }
    /// Makes transparent huge pages of the range now.
    ///
    /// Available since Linux 6.1.
    ///
    /// The corresponding C constant is `MADV_COLLAPSE`.
    public static var collapse: Advice { Advice(rawValue: 25) }
    /// Marks the memory's hardware as broken; needs `CAP_SYS_ADMIN`.
    ///
    /// The corresponding C constant is `MADV_HWPOISON`.
    public static var hardwarePoison: Advice { Advice(rawValue: 100) }
    /// Puts guard pages: a touch ends in `SIGSEGV`.
    ///
    /// Available since Linux 6.13.
    ///
    /// The corresponding C constant is `MADV_GUARD_INSTALL`.
    public static var guardInstall: Advice { Advice(rawValue: 102) }
    /// Removes guard pages.
    ///
    /// Available since Linux 6.13.
    ///
    /// The corresponding C constant is `MADV_GUARD_REMOVE`.
    public static var guardRemove: Advice { Advice(rawValue: 103) }
}

extension Mapping {
    /// Tells the kernel something of the memory, or does something with it.
    ///
    /// Where the memory is registered with ``UserfaultFD/Features/eventRemove``, advice that drops pages waits until
    /// the event is read: never give it from the thread that reads. The corresponding system call is `madvise(2)`.
    ///
    /// - Parameters:
    ///   - advice: What to tell.
    ///   - part: Whole pages of the mapping, or `nil` for all of it.
    /// - Throws: ``UserfaultError``: `EINVAL` for advice that the kernel lacks or that does not suit the memory, and for
    ///   a part that leaves the mapping; `ENOMEM`, `EAGAIN`, `EBUSY`, `EFAULT` as each advice has them.
    public func advise(_ advice: Advice, _ part: AddressRange? = nil) throws(UserfaultError) {
        let part = part ?? range
        guard range.contains(part) else { throw UserfaultError(.advise, errno: .invalidArgument) }
        let answer = cuffd_madvise(UInt64(part.start), part.count, advice.rawValue)
        guard answer >= 0 else { throw UserfaultError(.advise, answer: answer) }
    }

    /// Changes what may be done with the memory.
    ///
    /// The corresponding system call is `mprotect(2)`.
    ///
    /// - Parameters:
    ///   - protection: What may be done from now on.
    ///   - part: Whole pages of the mapping, or `nil` for all of it.
    /// - Throws: ``UserfaultError``: `EACCES`, `EINVAL`, `ENOMEM`.
    public func protect(_ protection: MemoryProtection, _ part: AddressRange? = nil) throws(UserfaultError) {
        let part = part ?? range
        guard range.contains(part) else { throw UserfaultError(.protect, errno: .invalidArgument) }
        let answer = cuffd_mprotect(UInt64(part.start), part.count, protection.rawValue)
        guard answer >= 0 else { throw UserfaultError(.protect, answer: answer) }
    }
}
