import Glibc

/// The memory control group that limits this program most: its own, or one that holds it.
struct MemoryLimit {
    /// The file with the limit.
    let limitFile: String
    let bytes: Int
    /// The file that counts the processes that were killed because the group was full.
    private let killFile: String

    var mebibytes: Int { bytes >> 20 }

    var kills: Int { ProcFile.count("oom_kill", in: killFile) ?? 0 }

    /// `nil` without a limit, or where groups cannot be seen.
    static let own = find()

    private static func find() -> MemoryLimit? {
        let mounts = ProcFile.text("/proc/self/mounts") ?? ""
        var least: MemoryLimit?
        for group in (ProcFile.text("/proc/self/cgroup") ?? "").split(separator: "\n") {
            let fields = group.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let isUnified = fields[0] == "0" && fields[1].isEmpty
            guard isUnified || fields[1].split(separator: ",").contains("memory"),
                let top = top(isUnified: isUnified, mounts)
            else { continue }
            var names = fields[2].split(separator: "/")
            while true {
                let folder = ([Substring(top)] + names).joined(separator: "/")
                if let limit = MemoryLimit(folder, isUnified: isUnified), limit.bytes < least?.bytes ?? .max {
                    least = limit
                }
                guard names.popLast() != nil else { break }
            }
        }
        return least
    }

    /// Where groups are mounted.
    private static func top(isUnified: Bool, _ mounts: String) -> String? {
        for mount in mounts.split(separator: "\n") {
            let fields = mount.split(separator: " ")
            guard fields.count > 3 else { continue }
            if isUnified, fields[2] == "cgroup2" { return String(fields[1]) }
            if !isUnified, fields[2] == "cgroup", fields[3].split(separator: ",").contains("memory") {
                return String(fields[1])
            }
        }
        return nil
    }

    private init?(_ folder: String, isUnified: Bool) {
        limitFile = folder + (isUnified ? "/memory.max" : "/memory.limit_in_bytes")
        killFile = folder + (isUnified ? "/memory.events" : "/memory.oom_control")
        // "max", and what version 1 has in its place, are no limit.
        guard let bytes = ProcFile.line(limitFile).flatMap({ Int($0) }), bytes < 1 << 60 else { return nil }
        self.bytes = bytes
    }
}
