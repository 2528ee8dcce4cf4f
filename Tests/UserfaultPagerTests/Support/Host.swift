import Glibc
import Testing
import UserfaultFD

/// What this machine offers the tests.
enum Host {
    static let isRoot = geteuid() == 0

    /// Whether KVM makes guests here, whose faults this process may handle.
    static let hasGuests: Bool = {
        do {
            _ = try UserfaultFD(options: Guest.faults)
            _ = try Guest(memory: Mapping(anonymous: pageBytes).range)
            return true
        } catch {
            return false
        }
    }()

    static var freeHugePages: Int {
        guard let file = fopen("/proc/meminfo", "re") else { return 0 }
        defer { fclose(file) }
        let name = "HugePages_Free:"
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, CInt(line.count), file) != nil {
            guard strncmp(line, name, name.utf8.count) == 0 else { continue }
            return line.withUnsafeBufferPointer { atol($0.baseAddress! + name.utf8.count) }
        }
        return 0
    }
}

extension Trait where Self == ConditionTrait {
    /// Mounts.
    static var requiresRoot: Self { .enabled(if: Host.isRoot, "needs root") }

    /// Virtual machines.
    static var requiresGuests: Self { .enabled("needs KVM and kernel-mode faults") { Host.hasGuests } }

    /// A block device of a test's own.
    static var requiresLoopDevice: Self {
        .enabled("needs root and a free loop device") { LoopDevice.isPossible }
    }

    /// Pages of hugetlbfs, of 2 MiB.
    static func requiresHugePages(_ count: Int) -> Self {
        .enabled("needs \(count) free huge pages: sysctl vm.nr_hugepages=8") { Host.freeHugePages >= count }
    }
}

/// Leaves this process so many descriptors more, and no hole among those that it has: for a process of the test's own.
func leaveDescriptors(_ count: Int) {
    let highest = (0..<1024).last { fcntl(CInt($0), F_GETFD) >= 0 } ?? 0
    var next = dup(0)
    while next < highest { next = dup(0) }
    close(next)
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = rlim_t(next)
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    // What other threads have closed meanwhile.
    while dup(0) >= 0 {}
    limit.rlim_cur = rlim_t(Int(next) + count)
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
