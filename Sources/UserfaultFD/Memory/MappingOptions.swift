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
    public enum Placement: Hashable, Sendable {
        /// Where the kernel likes.
        case anywhere
        /// At this address, which must be free: `EEXIST` otherwise.
        ///
        /// The corresponding C constant is `MAP_FIXED_NOREPLACE`.
        case at(UInt)
        /// At this address, in the place of whatever is there.
        ///
        /// The corresponding C constant is `MAP_FIXED`.
        case replacing(UInt)
    }

    /// Further options of a mapping.
    public struct Options: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt32

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// No swap or huge pages are reserved: a touch may then end in `SIGBUS`.
        ///
        /// The corresponding C constant is `MAP_NORESERVE`.
        public static var noReserve: Options { Options(rawValue: 1 << 0) }
        /// Pages are brought in when the mapping is made.
        ///
        /// The corresponding C constant is `MAP_POPULATE`.
        public static var populate: Options { Options(rawValue: 1 << 1) }
        /// Pages are never swapped out.
        ///
        /// The corresponding C constant is `MAP_LOCKED`.
        public static var locked: Options { Options(rawValue: 1 << 2) }
    }
}
