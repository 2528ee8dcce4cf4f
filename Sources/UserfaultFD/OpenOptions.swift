extension UserfaultFD {
    /// How a userfaultfd is opened.
    public struct OpenOptions: Hashable, Sendable {
        /// Which faults the descriptor handles.
        public enum Faults: Hashable, Sendable {
            /// Faults of user-mode code only; needs no privilege.
            ///
            /// A system call that touches a missing page gets `EFAULT`. The corresponding C constant is
            /// `UFFD_USER_MODE_ONLY`, available since Linux 5.11. Linux 5.10 cannot limit a descriptor: it then
            /// handles kernel-mode faults too, and ``UserfaultFD/handlesKernelFaults`` says so.
            case userMode

            /// Faults of user-mode code and of the kernel on its behalf: system calls, KVM, io_uring.
            ///
            /// Needs `CAP_SYS_PTRACE`, or `vm.unprivileged_userfaultfd=1`, or access to `/dev/userfaultfd`. Never given
            /// up silently: if it is not allowed, opening throws.
            case userAndKernelMode
        }

        /// How a descriptor is obtained.
        public enum Way: Hashable, Sendable {
            /// The system call, then the device if the call is not allowed or does not exist.
            case either
            /// `userfaultfd(2)`. Available since Linux 4.3.
            case systemCall
            /// `/dev/userfaultfd`: only the file's permissions count. Available since Linux 6.1.
            case device
        }

        /// Which faults the descriptor handles.
        public var faults: Faults
        /// How the descriptor is obtained.
        public var way: Way
        /// Whether `execve` closes the descriptor.
        ///
        /// The corresponding C constant is `O_CLOEXEC`.
        public var closeOnExec: Bool
        /// Whether reading returns immediately if there is no message.
        ///
        /// The corresponding C constant is `O_NONBLOCK`.
        ///
        /// `poll` and `epoll` only work on descriptors in this mode; others always return `POLLERR`.
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
