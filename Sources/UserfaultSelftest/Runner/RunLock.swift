import CSelftestSupport
import Glibc
import SystemPackage

/// Keeps two runs from changing the host's settings, or from using its huge pages, at the same time.
///
/// The lock lies on a directory of the kernel that every user can open, so that it needs no place to write to. The
/// kernel lets go of it when the process ends.
final class RunLock {
    static let path = "/proc/sys/vm"
    static let refusal = "another uffd-selftest run does not let go of the lock on \(path)"
    private static let patience = Duration.seconds(300)

    private let directory: FileDescriptor?
    /// Waited for in vain: there is no use in waiting again.
    private var isHopeless = false

    init() {
        directory = try? FileDescriptor.open(Self.path, .readOnly, options: [.directory, .closeOnExec])
    }

    deinit { try? directory?.close() }

    /// Takes the lock, and waits for it until there is something to read or the patience has gone.
    ///
    /// - Parameter waiting: Called once with who holds it, if this has to wait.
    func take(unless interrupting: FileDescriptor?, waiting: (String) -> Void) -> Bool {
        guard let directory, !isHopeless else { return false }
        let deadline = ContinuousClock.now + Self.patience
        var told = false
        while flock(directory.rawValue, LOCK_EX | LOCK_NB) != 0 {
            if !told {
                waiting(holder())
                told = true
            }
            // Locks cannot be polled, so look ten times a second, and at once when there is a reason to stop.
            var reason = pollfd(fd: interrupting?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
            guard poll(&reason, 1, 100) == 0 else { return false }
            isHopeless = ContinuousClock.now >= deadline
            if isHopeless { return false }
        }
        return true
    }

    /// Lets the next run have it.
    func release() {
        if let directory { flock(directory.rawValue, LOCK_UN) }
    }

    /// The process that the kernel names as the holder.
    private func holder() -> String {
        var file = stat()
        guard let directory, fstat(directory.rawValue, &file) == 0 else { return "process unknown" }
        // `1: FLOCK  ADVISORY  WRITE 1234 00:15:4026531842 0 EOF`
        let inode = ":\(file.st_ino)"
        for line in (ProcFile.text("/proc/locks") ?? "").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 5, words[1] == "FLOCK", words[5].hasSuffix(inode) else { continue }
            return "process \(words[4])" + (ProcFile.line("/proc/\(words[4])/comm").map { " (\($0))" } ?? "")
        }
        return "process unknown"
    }
}
