/// What the kernel tells about the userfaultfds of a process.
enum UserfaultInfo {
    /// For each userfaultfd that process `pid` holds, one line with what `/proc/PID/fdinfo` says.
    static func lines(pid: String = "self") -> [String] {
        ProcFile.entries("/proc/\(pid)/fd").compactMap { descriptor in
            guard ProcFile.link("/proc/\(pid)/fd/\(descriptor)") == "anon_inode:[userfaultfd]",
                let text = ProcFile.text("/proc/\(pid)/fdinfo/\(descriptor)")
            else { return nil }
            let words = ["pending:", "total:", "API:"]
            let known = text.split(separator: "\n").filter { line in words.contains { line.hasPrefix($0) } }
            return "userfaultfd \(descriptor): "
                + known.map { $0.replacing("\t", with: " ") }.joined(separator: ", ")
        }
    }
}
