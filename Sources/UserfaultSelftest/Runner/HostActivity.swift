/// What other programs do on the host while a result runs, as far as it can spoil the result.
struct HostActivity {
    private let kills = vmstat("oom_kill")
    private let freeHugePages: Int

    /// - Parameter free: How many huge pages were free before the result's conditions were looked at: another program may have
    ///   taken them since.
    init(freeHugePages free: Int) {
        freeHugePages = max(free, HugePagePool.free)
    }

    /// Says in a failure what happened on the host meanwhile; what the host alone has brought about is a skip.
    func explain(_ result: inout CaseResult, ofProcessKilled wasKilled: Bool) {
        guard result.outcome == .fail else { return }
        if vmstat("oom_kill") > kills {
            // A case in a memory control group of its own may run out of memory by the kernel's fault.
            if wasKilled, !result.selected.selftestCase.requires.contains(.memoryGroup) {
                return skip(&result, "this time the host ran out of memory and its process was killed: free some")
            }
            result.detail.append("disturbed: the kernel killed a process because memory ran out")
        }
        guard result.selected.memory?.isHugetlb == true, HugePagePool.free != freeHugePages else { return }
        let users = HugePageUsers.all()
        if users.isEmpty {
            result.detail.append("free huge pages: \(freeHugePages) before it, \(HugePagePool.free) after it")
        } else {
            skip(&result, "this time other programs used its huge pages: \(users.joined(separator: ", "))")
        }
    }

    private func skip(_ result: inout CaseResult, _ reason: String) {
        result.detail.append("it failed: \(result.reason ?? "")")
        result.outcome = .skip
        result.reason = reason
    }
}

/// The programs that have huge pages mapped now.
enum HugePageUsers {
    static func all() -> [String] {
        ProcFile.entries("/proc").compactMap { Int32($0) }.compactMap { pid in
            guard let size = ProcFile.number("HugetlbPages", in: "/proc/\(pid)/status"), size > 0 else { return nil }
            return "\(ProcFile.line("/proc/\(pid)/comm") ?? "?") (process \(pid), \(size >> 10) MiB)"
        }
    }
}
