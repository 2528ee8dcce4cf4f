import CSelftestSupport
import Glibc
import SystemPackage

/// Processes that a case started and did not wait for.
///
/// While the process of the case lives, it is the parent of all of them; after its end, the runner is.
struct Strays {
    private(set) var killed = 0
    /// Those that SIGKILL does not end.
    private(set) var unkillable: Set<Int32> = []

    /// Kills the children of this process.
    static func kill(sparing others: Set<Int32>) -> Strays {
        var result = Strays()
        while true {
            // The death of one may make its children those of this process.
            let strays = children().subtracting(others).subtracting(result.unkillable)
            guard !strays.isEmpty else { return result }
            for stray in strays {
                _ = Glibc.kill(stray, SIGKILL)
                let pidfd = (try? Processes.pidfd(of: stray)) ?? nil
                defer { try? pidfd?.close() }
                if Processes.waitForEnd(of: stray, pidfd) {
                    result.killed += 1
                } else {
                    result.unkillable.insert(stray)
                }
            }
        }
    }

    /// The processes whose parent is this one.
    private static func children() -> Set<Int32> {
        if let text = ProcFile.text("/proc/self/task/\(getpid())/children") {
            return Set(text.split(separator: " ").compactMap { Int32($0) })
        }
        // Kernels without CONFIG_PROC_CHILDREN: the parent is the second field after the name.
        return Set(
            ProcFile.entries("/proc").compactMap { Int32($0) }.filter { pid in
                let fields = ProcFile.line("/proc/\(pid)/stat")?.split(separator: ") ").last?.split(separator: " ")
                return fields.map { $0.count > 1 && $0[1] == "\(getpid())" } ?? false
            })
    }
}
