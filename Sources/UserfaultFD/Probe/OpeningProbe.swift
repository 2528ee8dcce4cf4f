/// Tries every way to a userfaultfd, and says why one is closed and what would open it.
struct OpeningProbe {
    private(set) var features: UserfaultFD.Features = []
    private(set) var ioctls: UserfaultFD.Ioctls = []
    private(set) var checks: [KernelSupport.Check] = []

    var isUsable: Bool { checks.contains { $0.name == .userModeFaults && $0.isAvailable } }

    init() {
        let ways: [(KernelSupport.Name, String, UserfaultFD.OpenOptions)] = [
            (.userModeFaults, "Faults of user-mode code are handled: the library can be used", .init()),
            (
                .kernelModeFaults, "Faults of system calls are handled, through the call or the device",
                .init(faults: .userAndKernelMode)
            ),
            (
                .systemCall, "userfaultfd(2) opens a descriptor for kernel-mode faults",
                .init(faults: .userAndKernelMode, way: .systemCall)
            ),
            (
                .device, "/dev/userfaultfd opens a descriptor for kernel-mode faults",
                .init(faults: .userAndKernelMode, way: .device)
            ),
        ]
        for (name, meaning, options) in ways { checks.append(attempt(name, meaning, options)) }
        checks.append(forkCheck())
    }

    /// Opens and negotiates.
    private mutating func attempt(
        _ name: KernelSupport.Name, _ meaning: String, _ options: UserfaultFD.OpenOptions
    ) -> KernelSupport.Check {
        do throws(UserfaultError) {
            var descriptor = try UserfaultFD(unnegotiated: options)
            ioctls = try descriptor.negotiate()
            features = descriptor.supportedFeatures
            return .yes(name, meaning)
        } catch {
            return .no(
                name, meaning, reason: OpeningDiagnosis.reason(for: error), remedy: OpeningDiagnosis.remedy(for: error))
        }
    }

    /// EVENT_FORK is the one feature that needs a privilege of its own.
    private func forkCheck() -> KernelSupport.Check {
        let name = KernelSupport.Name.forkEvents
        let meaning = "A fork's child can be served too"
        do throws(UserfaultError) {
            _ = try UserfaultFD(features: .eventFork)
            return .yes(name, meaning)
        } catch {
            return .no(
                name, meaning, reason: OpeningDiagnosis.reason(for: error),
                remedy: error.operation == .negotiate && error.reason == .notPermitted
                    ? "grant CAP_SYS_PTRACE in the initial user namespace" : OpeningDiagnosis.remedy(for: error))
        }
    }
}
