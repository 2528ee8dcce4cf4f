// The options of the calls that resolve faults, one set per call: the bits differ from call to call.

extension UserfaultFD {
    /// Options of ``UserfaultFD/copy(_:to:options:)``.
    public struct CopyOptions: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Does not wake the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constant is `UFFDIO_COPY_MODE_DONTWAKE`.
        @inlinable public static var doNotWake: CopyOptions { CopyOptions(rawValue: 1 << 0) }

        /// Maps the pages write-protected.
        ///
        /// The range must be registered for it (`EINVAL` otherwise).
        ///
        /// The corresponding C constant is `UFFDIO_COPY_MODE_WP`. Available since Linux 5.7.
        @inlinable public static var writeProtect: CopyOptions { CopyOptions(rawValue: 1 << 1) }
    }

    /// Options of ``UserfaultFD/zeropage(_:options:)``.
    public struct ZeropageOptions: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Does not wake the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constant is `UFFDIO_ZEROPAGE_MODE_DONTWAKE`.
        @inlinable public static var doNotWake: ZeropageOptions { ZeropageOptions(rawValue: 1 << 0) }
    }

    /// Options of ``UserfaultFD/continue(_:options:)``.
    public struct ContinueOptions: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Does not wake the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constant is `UFFDIO_CONTINUE_MODE_DONTWAKE`.
        @inlinable public static var doNotWake: ContinueOptions { ContinueOptions(rawValue: 1 << 0) }

        /// Maps the pages write-protected.
        ///
        /// The range must be registered for it (`EINVAL` otherwise).
        ///
        /// The corresponding C constant is `UFFDIO_CONTINUE_MODE_WP`. Available since Linux 6.4, `EINVAL` before.
        @inlinable public static var writeProtect: ContinueOptions { ContinueOptions(rawValue: 1 << 1) }
    }

    /// Options of ``UserfaultFD/move(from:to:options:)``.
    public struct MoveOptions: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Does not wake the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constant is `UFFDIO_MOVE_MODE_DONTWAKE`.
        @inlinable public static var doNotWake: MoveOptions { MoveOptions(rawValue: 1 << 0) }

        /// Skips source pages that are missing.
        ///
        /// Their destination stays empty, and faults again when touched.
        ///
        /// The corresponding C constant is `UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES`.
        @inlinable public static var allowSourceHoles: MoveOptions { MoveOptions(rawValue: 1 << 1) }
    }

    /// Options of ``UserfaultFD/poison(_:options:)``.
    public struct PoisonOptions: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Does not wake the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constant is `UFFDIO_POISON_MODE_DONTWAKE`.
        @inlinable public static var doNotWake: PoisonOptions { PoisonOptions(rawValue: 1 << 0) }
    }

    /// What ``UserfaultFD/writeProtect(_:_:)`` and ``UserfaultFD/rwProtect(_:_:)`` do: the protection, set or removed.
    ///
    /// Both calls number their flags alike, and unlike the calls that fill pages.
    public struct Protection: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Sets the protection.
        ///
        /// The corresponding C constants are `UFFDIO_WRITEPROTECT_MODE_WP` and `UFFDIO_RWPROTECT_MODE_RWP`.
        @inlinable public static var protect: Protection { Protection(rawValue: 1 << 0) }

        /// Removes the protection, and wakes the threads that wait for that.
        @inlinable public static var unprotect: Protection { Protection(rawValue: 0) }

        /// Removes the protection without waking the threads that wait: call ``UserfaultFD/wake(_:)`` afterwards.
        ///
        /// The corresponding C constants are `UFFDIO_WRITEPROTECT_MODE_DONTWAKE` and
        /// `UFFDIO_RWPROTECT_MODE_DONTWAKE`; together with ``protect`` the kernel returns `EINVAL`.
        @inlinable public static var unprotectWithoutWaking: Protection { Protection(rawValue: 1 << 1) }
    }
}
