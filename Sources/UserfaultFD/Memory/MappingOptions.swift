internal import CUserfaultFD

extension Mapping {
    /// Who sees what is stored through a mapping.
    public enum Sharing: Hashable, Sendable {
        /// Everybody who maps the same file, or the same anonymous memory after a fork.
        ///
        /// The corresponding C constant is `MAP_SHARED`.
        case shared
        /// This mapping alone: the first store to a page makes a copy of it.
        ///
        /// The corresponding C constant is `MAP_PRIVATE`.
        case `private`
    }

    /// Where a mapping is put.
    public struct Placement: Hashable, Sendable {
        /// The address that was asked for, or `nil` for any.
        let address: UInt?
        let mustBeFree: Bool

        /// Where the kernel likes.
        public static let anywhere = Placement(address: nil, mustBeFree: false)

        /// At this address, which must be free: `EEXIST` otherwise.
        ///
        /// The corresponding C constant is `MAP_FIXED_NOREPLACE`.
        public static func at(_ address: UInt) -> Placement { Placement(address: address, mustBeFree: true) }

        /// At this address, replacing whatever is mapped there.
        ///
        /// What was there is gone, whoever used it. The corresponding C constants are `MAP_FIXED` and `MREMAP_FIXED`.
        @unsafe
        public static func replacing(_ address: UInt) -> Placement { Placement(address: address, mustBeFree: false) }

        /// Whether a pointer to it could be, and it begins a page; the kernel's answers to others are no errors of its own.
        var isPossible: Bool {
            guard let address else { return true }
            return address != 0 && address == PageSize.base.roundDown(address)
        }

        /// The flags of `mmap(2)`.
        var flags: CInt {
            guard address != nil else { return 0 }
            return mustBeFree ? CUFFD_MAP_FIXED_NOREPLACE : CUFFD_MAP_FIXED
        }
    }

    /// Further options of a mapping.
    public struct Options: OptionSet, Hashable, Sendable {
        /// The kernel's bits of `mmap(2)`, those that this library does not know included.
        ///
        /// The bits that say what is mapped, for whom and where are parameters of their own: here they are `EINVAL`.
        public let rawValue: Int32

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// Pages are never swapped out.
        ///
        /// The corresponding C constant is `MAP_LOCKED`.
        public static var locked: Options { Options(rawValue: CUFFD_MAP_LOCKED) }
        /// No swap or huge pages are reserved: a touch may then end in `SIGBUS`.
        ///
        /// The corresponding C constant is `MAP_NORESERVE`.
        public static var noReserve: Options { Options(rawValue: CUFFD_MAP_NORESERVE) }
        /// Pages are brought in when the mapping is made.
        ///
        /// The corresponding C constant is `MAP_POPULATE`.
        public static var populate: Options { Options(rawValue: CUFFD_MAP_POPULATE) }

        /// The bits that ``Mapping/Sharing``, ``Mapping/Placement`` and the kind of memory decide.
        static var decidedElsewhere: Options {
            Options(
                rawValue: CUFFD_MAP_SHARED | CUFFD_MAP_PRIVATE | CUFFD_MAP_FIXED | CUFFD_MAP_FIXED_NOREPLACE
                    | CUFFD_MAP_ANONYMOUS | CUFFD_MAP_HUGETLB)
        }
    }
}
