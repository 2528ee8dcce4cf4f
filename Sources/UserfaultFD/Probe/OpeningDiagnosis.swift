internal import CUserfaultFD
package import SystemPackage

/// Says why no userfaultfd could be opened, and what would help: for an error's description and for ``KernelSupport``.
package enum OpeningDiagnosis {
    /// What each way answered, by the names of the errors.
    static func reason(for error: UserfaultError) -> String {
        let answers = [
            error.systemCallAnswer.map { "userfaultfd(2) answered \(name($0))" },
            error.deviceAnswer.map { "/dev/userfaultfd answered \(name($0))" },
        ].compactMap { $0 }
        return answers.isEmpty
            ? "\(error.operation) answered \(name(error.errno))" : answers.joined(separator: "; ")
    }

    /// What would make opening succeed.
    static func remedy(for error: UserfaultError) -> String {
        var remedies: [String] = []
        switch error.systemCallAnswer {
        case .noFunction:
            remedies.append("use a kernel with CONFIG_USERFAULTFD, or a seccomp profile that allows userfaultfd")
        case .notPermitted, .permissionDenied:
            remedies.append(
                isFiltered(error)
                    ? "allow userfaultfd in the seccomp profile or the security module's policy"
                    : "grant CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd=1")
        default: break
        }
        switch error.deviceAnswer {
        case .noSuchFileOrDirectory, .noSuchAddressOrDevice:
            remedies.append("use Linux 6.1 or later, with /dev/userfaultfd made")
        case .permissionDenied, .notPermitted: remedies.append("give this user access to /dev/userfaultfd")
        default: break
        }
        return remedies.isEmpty ? "free descriptors or memory, and try again" : remedies.joined(separator: "; or ")
    }

    /// What to do about a failure: what would make it succeed, or to ask for less if the kernel lets everybody have that.
    static func advice(for error: UserfaultError) -> String {
        let asksForMore =
            error.circumstance != .userModeOnly && error.reason == .notPermitted
            && hasUserModeOnly && !isFiltered(error)
        return (asksForMore ? "handle user-mode faults only; or " : "") + remedy(for: error)
    }

    /// Whether not the kernel's own rule refused the system call, but a seccomp filter or a security module.
    ///
    /// The rule lets everybody open a descriptor for user-mode faults, where there are such. If that is refused too, a
    /// privilege cannot help.
    private static func isFiltered(_ error: UserfaultError) -> Bool {
        guard hasUserModeOnly else { return oldRuleAllows }
        return error.circumstance == .userModeOnly || filterAnswer != nil
    }

    /// What a seccomp filter or a security module answers to the system call in the kernel's place, or `nil`.
    package static var filterAnswer: Errno? {
        guard hasUserModeOnly || oldRuleAllows else { return nil }
        let descriptor = cuffd_userfaultfd(CUFFD_O_CLOEXEC | (hasUserModeOnly ? CInt(CUFFD_USER_MODE_ONLY) : 0))
        if descriptor >= 0 { _ = OwnedDescriptor(adopting: descriptor) }
        let answer = Errno(rawValue: -min(0, descriptor))
        return [.notPermitted, .permissionDenied, .noFunction].contains(answer) ? answer : nil
    }

    /// Whether there are descriptors for user-mode faults only: before, the kernel refused every descriptor alike.
    private static var hasUserModeOnly: Bool { KernelRelease.current.isAtLeast(5, 11) }

    /// What the kernel looked at before Linux 5.11; a capability counts in the initial namespace alone.
    private static var oldRuleAllows: Bool {
        if ProcFile.text("/proc/sys/vm/unprivileged_userfaultfd")?.hasPrefix("1") == true { return true }
        let map = ProcFile.text("/proc/self/uid_map")?.split { $0.isWhitespace }
        return Capability.sysPtrace.isEffective && map == ["0", "0", "4294967295"]
    }

    private static func name(_ errno: Errno) -> String {
        switch errno {
        case .notPermitted: "EPERM"
        case .permissionDenied: "EACCES"
        case .noFunction: "ENOSYS"
        case .noSuchFileOrDirectory: "ENOENT"
        case .invalidArgument: "EINVAL"
        case .tooManyOpenFiles: "EMFILE"
        case .tooManyOpenFilesInSystem: "ENFILE"
        case .noMemory: "ENOMEM"
        default: "errno \(errno.rawValue)"
        }
    }
}
