internal import CUserfaultFD
internal import SystemPackage

/// Tries every way to a userfaultfd, and says why one is closed and what would open it.
struct OpeningProbe {
    private(set) var features: UserfaultFD.Features = []
    private(set) var ioctls: UserfaultFD.Ioctls = []
    private(set) var checks: [KernelSupport.Check] = []

    var isUsable: Bool { checks.contains { $0.name == "user-mode-faults" && $0.isAvailable } }

    /// Whether a seccomp filter, and not the kernel's own rule, refuses the system call: user-mode faults need no
    /// privilege, so where it lets those through it does not answer in the kernel's place.
    private let isFiltered: Bool

    init() {
        let probe = try? UserfaultFD(unnegotiated: .init(way: .systemCall))
        isFiltered = probe == nil && Self.hasSeccompFilter
        let userMode = attempt(.userMode, .either)
        checks.append(userModeCheck(userMode))
        let ways: [(String, String, UserfaultFD.OpenOptions.Way)] = [
            ("kernel-mode-faults", "Faults of system calls are handled, through the call or the device", .either),
            ("system-call", "userfaultfd(2) opens a descriptor for kernel-mode faults", .systemCall),
            ("device", "/dev/userfaultfd opens a descriptor for kernel-mode faults", .device),
        ]
        for (name, meaning, way) in ways {
            let error = attempt(.userAndKernelMode, way)
            checks.append(
                error.map { .no(name, meaning, reason: reason($0), remedy: remedy($0)) } ?? .yes(name, meaning))
        }
        checks.append(forkCheck())
    }

    /// Opens and negotiates; answers what went wrong.
    private mutating func attempt(
        _ faults: UserfaultFD.OpenOptions.Faults, _ way: UserfaultFD.OpenOptions.Way
    ) -> UserfaultError? {
        do throws(UserfaultError) {
            var descriptor = try UserfaultFD(unnegotiated: .init(faults: faults, way: way))
            let ioctls = try descriptor.negotiate()
            self.ioctls = ioctls
            features = descriptor.supportedFeatures
            return nil
        } catch {
            return error
        }
    }

    private func userModeCheck(_ error: UserfaultError?) -> KernelSupport.Check {
        let name = "user-mode-faults"
        let meaning = "Faults of user-mode code are handled: the library can be used"
        guard let error else { return .yes(name, meaning) }
        return .no(name, meaning, reason: reason(error), remedy: remedy(error))
    }

    /// EVENT_FORK is the one feature that needs a privilege of its own.
    private func forkCheck() -> KernelSupport.Check {
        let name = "fork-events"
        let meaning = "A fork's child can be served too"
        do throws(UserfaultError) {
            _ = try UserfaultFD(features: .eventFork)
            return .yes(name, meaning)
        } catch {
            return .no(
                name, meaning, reason: reason(error),
                remedy: error.reason == .notPermitted
                    ? "grant CAP_SYS_PTRACE in the initial user namespace" : remedy(error))
        }
    }

    private func reason(_ error: UserfaultError) -> String {
        let answers = [
            error.systemCallAnswer.map { "userfaultfd(2) answered \(Self.name($0))" },
            error.deviceAnswer.map { "/dev/userfaultfd answered \(Self.name($0))" },
        ].compactMap { $0 }
        return answers.isEmpty
            ? "\(error.operation) answered \(Self.name(error.errno))" : answers.joined(separator: "; ")
    }

    private func remedy(_ error: UserfaultError) -> String {
        var remedies: [String] = []
        switch error.systemCallAnswer {
        case .noFunction:
            remedies.append("use a kernel with CONFIG_USERFAULTFD, or a seccomp profile that allows the call")
        case .notPermitted:
            remedies.append(
                isFiltered
                    ? "allow userfaultfd in the seccomp profile"
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

    /// Whether this process is under a seccomp filter.
    private static var hasSeccompFilter: Bool {
        guard let status = ProcFile.text("/proc/self/status") else { return false }
        return ProcFile.value(of: "Seccomp:", in: status).map { $0 != "0" } ?? false
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
