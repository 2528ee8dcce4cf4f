import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

/// What this machine offers the tests; asked once.
enum Host {
    static let isRoot = geteuid() == 0
    static let support = KernelSupport.probe()
    static let hasDevice = (try? FileDescriptor.open("/sys/class/misc/userfaultfd/dev", .readOnly).close()) != nil

    static var freeHugePages: Int {
        ProcFile.text("/proc/meminfo")
            .flatMap { ProcFile.value(of: "HugePages_Free:", in: $0) }
            .flatMap { Int($0) } ?? 0
    }
}

extension Trait where Self == ConditionTrait {
    /// Forks with events, mounts, other identities.
    static var requiresRoot: Self { .enabled(if: Host.isRoot, "needs root") }

    /// The thread sanitizer holds its own locks over `fork`, and takes them at every access of the thread that is to read
    /// the fork's event: the two wait for each other.
    static var followsForks: Self {
        .enabled("the thread sanitizer cannot follow forks") {
            dlsym(UnsafeMutableRawPointer(bitPattern: 0), "__tsan_init") == nil
        }
    }

    /// The second way to a descriptor, which Linux 5.10 lacks.
    static var requiresDevice: Self {
        .enabled(if: Host.hasDevice, "the kernel lacks /dev/userfaultfd")
    }

    /// Pages of hugetlbfs, of 2 MiB.
    static func requiresHugePages(_ count: Int) -> Self {
        .enabled("needs \(count) free huge pages: sysctl vm.nr_hugepages=8") { Host.freeHugePages >= count }
    }

    /// A feature that the kernel offers.
    static func requires(_ feature: UserfaultFD.Features) -> Self {
        .enabled(if: Host.support.features.contains(feature), "the kernel lacks \(feature)")
    }

    /// The kernel must lack the feature: older kernels answer as this test says.
    static func requiresLackOf(_ feature: UserfaultFD.Features) -> Self {
        .disabled(if: Host.support.features.contains(feature), "the kernel has \(feature)")
    }
}

/// The suites that use the kernel: one test at a time, and none for ever.
@Suite(.serialized, .timeLimit(.minutes(5)))
enum Kernel {}
