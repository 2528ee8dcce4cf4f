import Glibc

/// How many threads of the host want each of its processors at this moment.
///
/// Other programs may come long after ``Slowness`` was measured. Whoever is about to give up a wait asks once whether there
/// was a processor for what it waits for.
package enum Crowding {
    /// 1 if there is a processor for every thread that wants one; at most ``most``.
    package static var factor: Double {
        guard let line = ProcFile.line("/proc/loadavg") else { return 1 }
        return factor(loadavg: line, processors: sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    }

    /// What takes longer than this is stuck, however many there are.
    private static let most = 12.0

    /// From the line of `/proc/loadavg`: the mean of the last minute, or the threads that run now if there are more.
    package static func factor(loadavg line: String, processors: Int) -> Double {
        let fields = line.split(separator: " ")
        guard fields.count >= 4 else { return 1 }
        let now = fields[3].split(separator: "/").first.flatMap { Double($0) } ?? 0
        let wanted = max(now, Double(fields[0]) ?? 0)
        return min(most, max(1, wanted / Double(max(1, processors))))
    }
}
