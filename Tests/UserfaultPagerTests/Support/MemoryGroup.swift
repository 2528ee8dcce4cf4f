import Glibc

/// A memory cgroup of a test's own, of whichever version the host has; removed once it is empty.
struct MemoryGroup: ~Copyable {
    private let path: String
    private let isFirstVersion: Bool

    /// Whether one can be made.
    static var isPossible: Bool {
        guard let group = MemoryGroup() else { return false }
        _ = consume group
        return true
    }

    /// - Returns: `nil` where this user, or this kernel, cannot make one.
    init?(limit: Int = 1 << 30) {
        let name = "uffd-pager-\(getpid())"
        isFirstVersion = access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0
        path = "/sys/fs/cgroup/" + (isFirstVersion ? "memory/" : "") + name
        guard mkdir(path, 0o755) == 0 else { return nil }
        guard write("\(limit)", to: isFirstVersion ? "memory.limit_in_bytes" : "memory.max") else {
            rmdir(path)
            return nil
        }
        // Where the host can swap, that is limited as well.
        _ = isFirstVersion ? write("\(limit)", to: "memory.memsw.limit_in_bytes") : write("0", to: "memory.swap.max")
    }

    deinit {
        // What ended a moment ago may count still.
        for _ in 0..<2000 where rmdir(path) != 0 && errno == EBUSY { usleep(1000) }
    }

    func add(_ process: pid_t) -> Bool { write("\(process)", to: "cgroup.procs") }

    /// Has the kernel refuse memory in place of killing.
    ///
    /// - Returns: `false` where it cannot.
    func disableKiller() -> Bool { isFirstVersion && write("1", to: "memory.oom_control") }

    private func write(_ text: String, to file: String) -> Bool {
        let descriptor = open("\(path)/\(file)", O_WRONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return text.withCString { Glibc.write(descriptor, $0, strlen($0)) } == text.utf8.count
    }
}
