extension UserfaultFD {
    /// What is to be reported of a registered range.
    public struct RegisterModes: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Accesses to pages that do not exist.
        ///
        /// The corresponding C constant is `UFFDIO_REGISTER_MODE_MISSING`. Available since Linux 4.3.
        public static var missing: RegisterModes { RegisterModes(rawValue: 1 << 0) }

        /// Writes to pages that ``UserfaultFD/writeProtect(_:_:)`` protected.
        ///
        /// Registering alone protects nothing.
        ///
        /// The corresponding C constant is `UFFDIO_REGISTER_MODE_WP`. Available since Linux 5.7 for anonymous memory,
        /// since 5.19 for shared memory and hugetlbfs.
        public static var writeProtect: RegisterModes { RegisterModes(rawValue: 1 << 1) }

        /// Touches of pages that the file has and this mapping does not map yet: shared memory and hugetlbfs only.
        ///
        /// The corresponding C constant is `UFFDIO_REGISTER_MODE_MINOR`. Available since Linux 5.13 for hugetlbfs,
        /// since 5.14 for shared memory.
        public static var minor: RegisterModes { RegisterModes(rawValue: 1 << 2) }

        /// Any access to pages that ``UserfaultFD/rwProtect(_:_:)`` protected.
        ///
        /// Excludes ``writeProtect``.
        ///
        /// The corresponding C constant is `UFFDIO_REGISTER_MODE_RWP`. Available since Linux 7.3.
        public static var readWriteProtect: RegisterModes { RegisterModes(rawValue: 1 << 3) }
    }
}

extension UserfaultFD.RegisterModes: CustomStringConvertible {
    /// The names of the bits that are known, then the rest as a number.
    public var description: String {
        describeFlags(
            self, [(.missing, "MISSING"), (.writeProtect, "WP"), (.minor, "MINOR"), (.readWriteProtect, "RWP")])
    }
}
