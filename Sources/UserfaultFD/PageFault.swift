/// A page fault that waits to be resolved.
///
/// The same fault may be reported more than once: by several threads, after a signal, after a wake without a page.
public struct PageFault: Hashable, Sendable {
    /// The faulting address: that of the page (of the huge page on hugetlbfs), or with
    /// ``UserfaultFD/Features/exactAddress`` of the byte.
    public let address: UInt

    /// What the kernel says of the access.
    public let flags: Flags

    /// The faulting thread's id in its own process id namespace, or 0 without ``UserfaultFD/Features/threadID``.
    public let threadID: UInt32

    /// A page fault from its parts.
    public init(address: UInt, flags: Flags, threadID: UInt32 = 0) {
        self.address = address
        self.flags = flags
        self.threadID = threadID
    }

    /// What the kernel says of a faulting access.
    public struct Flags: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// The access was a write.
        ///
        /// The corresponding C constant is `UFFD_PAGEFAULT_FLAG_WRITE`.
        @inlinable public static var write: Flags { Flags(rawValue: 1 << 0) }
        /// The page is write-protected.
        ///
        /// The corresponding C constant is `UFFD_PAGEFAULT_FLAG_WP`. Available since Linux 5.7.
        @inlinable public static var writeProtect: Flags { Flags(rawValue: 1 << 1) }
        /// The file has the page; only the mapping has not.
        ///
        /// The corresponding C constant is `UFFD_PAGEFAULT_FLAG_MINOR`. Available since Linux 5.13.
        @inlinable public static var minor: Flags { Flags(rawValue: 1 << 2) }
        /// The page is protected against every access.
        ///
        /// The corresponding C constant is `UFFD_PAGEFAULT_FLAG_RWP`. Available since Linux 7.3.
        @inlinable public static var readWriteProtect: Flags { Flags(rawValue: 1 << 3) }
    }

    /// What a fault wants.
    ///
    /// Kinds may be added: a `switch` that names all of them includes an `@unknown default` case.
    @nonexhaustive
    public enum Kind: Hashable, Sendable {
        /// A page: ``UserfaultFD/copy(_:to:options:)`` or another call that fills.
        case missing
        /// The page that the file has: ``UserfaultFD/continue(_:options:)``.
        case minor
        /// The write protection removed: ``UserfaultFD/writeProtect(_:_:)``.
        case writeProtect
        /// The protection removed: ``UserfaultFD/rwProtect(_:_:)``.
        case readWriteProtect
    }

    /// What the fault wants.
    ///
    /// Never infer it from ``isWrite``, which any kind may have.
    @inlinable public var kind: Kind {
        if flags.contains(.readWriteProtect) { return .readWriteProtect }
        if flags.contains(.writeProtect) { return .writeProtect }
        if flags.contains(.minor) { return .minor }
        return .missing
    }

    /// Whether the access was a write.
    @inlinable public var isWrite: Bool { flags.contains(.write) }

    /// The page that the fault is about.
    ///
    /// - Parameter pageSize: The size of the mapping's pages: the huge page's on hugetlbfs, else the base page's.
    @inlinable
    public func page(size pageSize: PageSize) -> AddressRange {
        AddressRange.page(holding: address, size: pageSize)
    }
}

extension PageFault.Flags: CustomStringConvertible {
    /// The names of the bits that are known, then the rest as a number.
    public var description: String {
        describeFlags(
            self, [(.write, "WRITE"), (.writeProtect, "WP"), (.minor, "MINOR"), (.readWriteProtect, "RWP")])
    }
}

extension PageFault: CustomStringConvertible {
    /// One line: the kind, the address, the flags, and the thread if it is known.
    public var description: String {
        let thread = threadID == 0 ? "" : " by thread \(threadID)"
        return "\(kind) fault at 0x\(String(address, radix: 16)) \(flags)\(thread)"
    }
}
