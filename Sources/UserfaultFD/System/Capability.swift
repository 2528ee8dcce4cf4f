internal import CUserfaultFD

/// A capability of the calling thread.
package enum Capability {
    case sysPtrace
    case sysAdmin

    /// The kernel's number.
    package var number: Int32 {
        switch self {
        case .sysPtrace: CUFFD_CAP_SYS_PTRACE
        case .sysAdmin: CUFFD_CAP_SYS_ADMIN
        }
    }

    /// Whether it is in the thread's effective set.
    ///
    /// Which user namespace it counts in is not looked at: in a container it may be worth nothing outside.
    package var isEffective: Bool { cuffd_has_capability(number) == 1 }
}
