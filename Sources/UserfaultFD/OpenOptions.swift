extension UserfaultFD {
    /// How a userfaultfd is opened.
    public struct OpenOptions: Hashable, Sendable {
        /// Whose faults the descriptor is to handle.
        public enum Faults: Hashable, Sendable {
            /// Faults of user-mode code only; needs no privilege.
            ///
            /// A system call that touches a page that is not there gets `EFAULT`. The corresponding C constant is
            /// `UFFD_USER_MODE_ONLY`, available since Linux 5.11. Linux 5.10 cannot limit a descriptor: it then
            /// handles kernel-mode faults too, and ``UserfaultFD/handlesKernelFaults`` says so.
            case userMode

            /// Faults of user-mode code and of the kernel on its behalf: system calls, KVM, io_uring.
            ///
            /// Needs `CAP_SYS_PTRACE`, or `vm.unprivileged_userfaultfd=1`, or access to `/dev/userfaultfd`. Never given
            /// up silently: where it is not allowed, opening throws.
            case userAndKernelMode
        }

        /// Through what a descriptor is opened.
        public enum Way: Hashable, Sendable {
            /// The system call, then the device where the call is not allowed or not there.
            case either
            /// `userfaultfd(2)`. Available since Linux 4.3.
            case systemCall
            /// `/dev/userfaultfd`: only the file's permissions count. Available since Linux 6.1.
            case device
        }

        /// Whose faults the descriptor is to handle.
        public var faults: Faults
        /// Through what the descriptor is opened.
        public var way: Way
        /// Whether `execve` closes the descriptor.
        ///
        /// The corresponding C constant is `O_CLOEXEC`.
        public var closeOnExec: Bool
        /// Whether reading answers at once where nothing is there.
        ///
        /// The corresponding C constant is `O_NONBLOCK`.
        ///
        /// `poll` and `epoll` only work on descriptors in this mode; others answer `POLLERR` for ever.
        public var nonBlocking: Bool

        /// How a userfaultfd is opened; the defaults need the least privilege.
        public init(
            faults: Faults = .userMode,
            way: Way = .either,
            closeOnExec: Bool = true,
            nonBlocking: Bool = true
        ) {
            self.faults = faults
            self.way = way
            self.closeOnExec = closeOnExec
            self.nonBlocking = nonBlocking
        }
    }
}
