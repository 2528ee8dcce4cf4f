extension UserfaultFD {
    /// What a userfaultfd can do beyond the first version, as `UFFDIO_API` negotiates it.
    ///
    /// Some features must be *enabled* to have an effect; the others only *report* that the kernel has something. Bits
    /// that this library does not know are kept. The value that a kernel returns is everything it has
    /// (``UserfaultFD/supportedFeatures``), not what was enabled (``UserfaultFD/enabledFeatures``).
    public struct Features: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// Write protection exists on this architecture: ``RegisterModes/writeProtect`` and `UFFDIO_WRITEPROTECT`.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_PAGEFAULT_FLAG_WP`. Available since Linux 5.7.
        public static var writeProtect: Features { Features(rawValue: 1 << 0) }

        /// A fork duplicates the registrations, and the monitor gets ``Event/fork(_:)`` with the child's descriptor.
        ///
        /// Must be enabled, which needs `CAP_SYS_PTRACE` in the initial user namespace (`EPERM` otherwise). The
        /// forking thread waits until the event is read, and `fork` holds the allocator's locks while it waits: the
        /// thread that reads must not allocate. The corresponding C constant is `UFFD_FEATURE_EVENT_FORK`. Available
        /// since Linux 4.11.
        public static var eventFork: Features { Features(rawValue: 1 << 1) }

        /// A moved mapping stays registered, and the monitor gets ``Event/remap(from:to:count:)``.
        ///
        /// Must be enabled. Without it a mapping that `mremap` moves is no longer registered. The corresponding C
        /// constant is `UFFD_FEATURE_EVENT_REMAP`. Available since Linux 4.11.
        public static var eventRemap: Features { Features(rawValue: 1 << 2) }

        /// The monitor gets ``Event/remove(_:)`` before `madvise` drops pages.
        ///
        /// Must be enabled. The corresponding C constant is `UFFD_FEATURE_EVENT_REMOVE`. Available since Linux 4.11.
        public static var eventRemove: Features { Features(rawValue: 1 << 3) }

        /// Missing faults work on hugetlbfs.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_MISSING_HUGETLBFS`. Available since Linux 4.11.
        public static var missingHugetlbfs: Features { Features(rawValue: 1 << 4) }

        /// Missing faults work on shared memory: tmpfs, memfd and shared anonymous mappings.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_MISSING_SHMEM`. Available since Linux 4.11.
        public static var missingShmem: Features { Features(rawValue: 1 << 5) }

        /// The monitor gets ``Event/unmap(_:)`` when registered memory is unmapped.
        ///
        /// Must be enabled. The corresponding C constant is `UFFD_FEATURE_EVENT_UNMAP`. Available since Linux 4.11.
        public static var eventUnmap: Features { Features(rawValue: 1 << 6) }

        /// Faults are not reported: the faulting thread gets `SIGBUS`, and a system call `EFAULT`.
        ///
        /// Must be enabled. The corresponding C constant is `UFFD_FEATURE_SIGBUS`. Available since Linux 4.14.
        public static var sigbus: Features { Features(rawValue: 1 << 7) }

        /// Page faults carry the faulting thread's id: ``PageFault/threadID``.
        ///
        /// Must be enabled. The corresponding C constant is `UFFD_FEATURE_THREAD_ID`. Available since Linux 4.14.
        public static var threadID: Features { Features(rawValue: 1 << 8) }

        /// Minor faults and `UFFDIO_CONTINUE` work on hugetlbfs.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_MINOR_HUGETLBFS`. Available since Linux 5.13.
        public static var minorHugetlbfs: Features { Features(rawValue: 1 << 9) }

        /// Minor faults and `UFFDIO_CONTINUE` work on shared memory.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_MINOR_SHMEM`. Available since Linux 5.14.
        public static var minorShmem: Features { Features(rawValue: 1 << 10) }

        /// Page faults carry the exact address, not that of the page.
        ///
        /// Must be enabled. Waking then needs a range that holds the exact address, which whole pages always do. The
        /// corresponding C constant is `UFFD_FEATURE_EXACT_ADDRESS`. Available since Linux 5.18.
        public static var exactAddress: Features { Features(rawValue: 1 << 11) }

        /// Write protection works on hugetlbfs and shared memory.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`. Available since Linux 5.19.
        public static var writeProtectHugetlbfsShmem: Features { Features(rawValue: 1 << 12) }

        /// Write protection also covers anonymous pages that do not exist yet.
        ///
        /// Must be enabled; shared memory and hugetlbfs behave so always. The corresponding C constant is
        /// `UFFD_FEATURE_WP_UNPOPULATED`. Available since Linux 6.4.
        public static var writeProtectUnpopulated: Features { Features(rawValue: 1 << 13) }

        /// `UFFDIO_POISON` exists.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_POISON`. Available since Linux 6.6.
        public static var poison: Features { Features(rawValue: 1 << 14) }

        /// Write-protect faults resolve themselves, without a message: dirty pages are found by ``PagemapScan``.
        ///
        /// Must be enabled; the kernel adds ``writeProtectUnpopulated``. Any kind of mapping may then be registered
        /// for write protection alone. The corresponding C constant is `UFFD_FEATURE_WP_ASYNC`. Available since
        /// Linux 6.7.
        public static var writeProtectAsync: Features { Features(rawValue: 1 << 15) }

        /// `UFFDIO_MOVE` exists.
        ///
        /// Reported, needs no enabling. The corresponding C constant is `UFFD_FEATURE_MOVE`. Available since Linux 6.8.
        public static var move: Features { Features(rawValue: 1 << 16) }

        /// Read-write protection: ``RegisterModes/readWriteProtect`` and `UFFDIO_RWPROTECT`.
        ///
        /// Must be enabled. The corresponding C constant is `UFFD_FEATURE_RWP`. Available since Linux 7.3.
        public static var readWriteProtect: Features { Features(rawValue: 1 << 17) }

        /// Read-write-protect faults resolve themselves, without a message; ``UserfaultFD/setMode(enable:disable:)``
        /// turns this on and off.
        ///
        /// Must be enabled, together with ``readWriteProtect``. The corresponding C constant is
        /// `UFFD_FEATURE_RWP_ASYNC`. Available since Linux 7.3.
        public static var readWriteProtectAsync: Features { Features(rawValue: 1 << 18) }

        // By unions, here and elsewhere: a literal takes memory in programs that are not optimized, and a thread that reads of
        // a fork must not wait for the heap, whose locks the thread that forks has.

        /// The features that make the monitor get events other than page faults.
        public static var events: Features { .eventFork.union(.eventRemap).union(.eventRemove).union(.eventUnmap) }

        /// The features that make memory registrable for minor faults.
        static var minorFaults: Features { .minorShmem.union(.minorHugetlbfs) }
    }
}

extension UserfaultFD.Features: CustomStringConvertible {
    /// Every feature this library knows, with its C name, in the order of the bits.
    public static let names: [(feature: UserfaultFD.Features, name: String)] = [
        (.writeProtect, "PAGEFAULT_FLAG_WP"), (.eventFork, "EVENT_FORK"), (.eventRemap, "EVENT_REMAP"),
        (.eventRemove, "EVENT_REMOVE"), (.missingHugetlbfs, "MISSING_HUGETLBFS"), (.missingShmem, "MISSING_SHMEM"),
        (.eventUnmap, "EVENT_UNMAP"), (.sigbus, "SIGBUS"), (.threadID, "THREAD_ID"),
        (.minorHugetlbfs, "MINOR_HUGETLBFS"), (.minorShmem, "MINOR_SHMEM"), (.exactAddress, "EXACT_ADDRESS"),
        (.writeProtectHugetlbfsShmem, "WP_HUGETLBFS_SHMEM"), (.writeProtectUnpopulated, "WP_UNPOPULATED"),
        (.poison, "POISON"), (.writeProtectAsync, "WP_ASYNC"), (.move, "MOVE"), (.readWriteProtect, "RWP"),
        (.readWriteProtectAsync, "RWP_ASYNC"),
    ]

    /// The names of the bits that are known, then the rest as a number.
    public var description: String {
        describeFlags(self, Self.names.map { ($0.feature, $0.name) })
    }
}
