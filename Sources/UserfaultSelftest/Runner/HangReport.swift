/// What can still be learned of a process that does not come back, before it is killed.
enum HangReport {
    static func lines(pid: Int32) -> [String] {
        UserfaultInfo.lines(pid: "\(pid)") + ProcFile.entries("/proc/\(pid)/task").flatMap { thread(pid: pid, tid: $0) }
    }

    private static func thread(pid: Int32, tid: String) -> [String] {
        let task = "/proc/\(pid)/task/\(tid)"
        let name = ProcFile.line("\(task)/comm") ?? "?"
        // The state follows the name, which may itself hold blanks and parentheses.
        let state = ProcFile.line("\(task)/stat")?.split(separator: ") ").last?.first.map(String.init) ?? "?"
        let place = ProcFile.line("\(task)/wchan") ?? "?"
        let call = ProcFile.line("\(task)/syscall").map { ", syscall \($0)" } ?? ""
        let stack = ProcFile.text("\(task)/stack")?.split(separator: "\n").prefix(8).map { "    \($0)" } ?? []
        return ["thread \(tid) (\(name)): state \(state), in \(place)\(call)"] + stack
    }
}
