import CSelftestSupport
import SystemPackage
import UserfaultFD

/// Gives up what a case must do without.
///
/// Each result is a process of its own, so nothing is taken back.
package enum Privilege {
    /// Whether this process has CAP_SYS_PTRACE where it counts: in the user namespace that the kernel booted with.
    package static var hasTracing: Bool {
        // The kernel gives this namespace a fixed inode number; one without user namespaces has no such file.
        let initial = "user:[4026531837]"
        return Capability.sysPtrace.isEffective
            && ProcFile.link("/proc/self/ns/user") ?? initial == initial
    }

    /// Does without CAP_SYS_PTRACE from now on.
    package static func dropTracing() throws {
        try checked(css_drop_capability(Capability.sysPtrace.number))
        try expectEqual(Capability.sysPtrace.isEffective, false, "CAP_SYS_PTRACE after it was dropped")
    }

    /// Has every capability from now on, in a user namespace that counts for nothing outside.
    package static func enterUserNamespace() throws {
        let answer = css_unshare_user()
        guard answer == 0 else {
            throw CaseSkip("this user may make no user namespace (errno \(-answer))")
        }
        try expectEqual(Capability.sysPtrace.isEffective, true, "CAP_SYS_PTRACE in a new user namespace")
    }

    /// Gives the children of this process a process id namespace; it can start no thread from now on.
    package static func enterProcessNamespace() throws {
        let answer = css_unshare_processes()
        guard answer == 0 else {
            throw CaseSkip("this user may make no process id namespace (errno \(-answer))")
        }
    }

    /// Lets the next descriptor be refused: every number below the limit is taken.
    package static func exhaustDescriptors() throws {
        let next = try FileDescriptor.open("/", .readOnly, options: .closeOnExec)
        try next.close()
        try checked(css_limit_descriptors(UInt64(next.rawValue)))
    }
}
