internal import CUserfaultFD
internal import SystemPackage

/// What `madvise(2)` and `process_madvise(2)` are told about memory.
public struct Advice: RawRepresentable, Hashable, Sendable {
    /// The kernel's number of the advice.
    public let rawValue: Int32

    /// An advice by the kernel's number, whether this library knows it or not.
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// No special treatment.
    ///
    /// The corresponding C constant is `MADV_NORMAL`.
    public static var normal: Advice { Advice(rawValue: 0) }
    /// The pages will be used soon: a file's are read ahead.
    ///
    /// The corresponding C constant is `MADV_WILLNEED`.
    public static var willNeed: Advice { Advice(rawValue: 3) }
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
    /// A child of a fork finds zeros in place of the memory's content.
    ///
    /// Private anonymous memory only. The corresponding C constant is `MADV_WIPEONFORK`. Available since Linux 4.14.
    public static var wipeOnFork: Advice { Advice(rawValue: 18) }
    /// Undoes ``wipeOnFork``.
    ///
    /// The corresponding C constant is `MADV_KEEPONFORK`.
    public static var keepOnFork: Advice { Advice(rawValue: 19) }
    /// The pages are the first to go when memory is short.
    ///
    /// The corresponding C constant is `MADV_COLD`. Available since Linux 5.4.
    public static var cold: Advice { Advice(rawValue: 20) }
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
    /// Tells the kernel something about the memory, or has it do something with it.
    ///
    /// If the memory is registered with ``UserfaultFD/Features/eventRemove``, advice that drops pages waits until the
    /// event is read: never give it from the thread that reads. The corresponding system call is `madvise(2)`.
    ///
    /// - Parameters:
    ///   - advice: What to tell.
    ///   - part: Whole pages of the mapping, or `nil` for all of it.
    /// - Throws: ``UserfaultError``: `EINVAL` for advice that the kernel does not have or that does not fit the memory, and
    ///   for a part that leaves the mapping; `ENOMEM`, `EAGAIN`, `EBUSY`, `EFAULT` as each advice has them.
    public func advise(_ advice: Advice, _ part: AddressRange? = nil) throws(UserfaultError) {
        try AddressSpace.advise(advice, try own(part, for: .advise))
    }

    /// Changes which accesses are allowed.
    ///
    /// The corresponding system call is `mprotect(2)`.
    ///
    /// - Parameters:
    ///   - protection: Which accesses are allowed from now on.
    ///   - part: Whole pages of the mapping, or `nil` for all of it.
    /// - Throws: ``UserfaultError``: `EACCES`, `EINVAL`, `ENOMEM`.
    public func protect(_ protection: MemoryProtection, _ part: AddressRange? = nil) throws(UserfaultError) {
        let part = try own(part, for: .protect)
        _ = try answer(to: .protect) { cuffd_mprotect(UInt64(part.start), part.count, protection.rawValue) }
    }

    /// Whether pages are in memory: one `Bool` for each page of the base size.
    ///
    /// Private anonymous memory: whether the page was touched and is not swapped out. Memory of a file: whether the file
    /// has the page in memory, mapped here or not. The corresponding system call is `mincore(2)`.
    ///
    /// - Parameter part: Whole pages of the mapping, or `nil` for all of it.
    /// - Throws: ``UserfaultError``: `ENOMEM` if a part is unmapped, `EINVAL` for a part that leaves the mapping.
    public func residency(of part: AddressRange? = nil) throws(UserfaultError) -> [Bool] {
        try AddressSpace.residency(of: try own(part, for: .residency))
    }

    /// A part of this mapping; all of it if none is given.
    private func own(
        _ part: AddressRange?, for operation: UserfaultError.Operation
    ) throws(UserfaultError) -> AddressRange {
        guard let part else { return range }
        guard range.contains(part) else { throw UserfaultError(operation, errno: .invalidArgument) }
        return part
    }
}
