import CSelftestSupport
import Glibc
import SystemPackage

/// Keeps two runs from changing the host's settings, or from using its huge pages, at the same time.
///
/// The lock lies on a directory of the kernel that every user can open, so that it needs no place to write to. The
/// kernel lets go of it when the process ends. Any user can also keep it for ever, so no wait for it is endless. A PID
/// namespace has its own /proc: runs in different ones do not see each other.
final class RunLock {
    static let path = "/proc/sys/vm"
    /// How long a run waits for another one, unless its time budget ends earlier.
    static let patience = Duration.seconds(300)

    private let directory: FileDescriptor?
    /// What came of a wait in vain, after which this only looks whether the lock is free.
    private var refusal: String?

    init() {
        directory = try? FileDescriptor.open(Self.path, .readOnly, options: [.directory, .closeOnExec])
    }

    deinit { try? directory?.close() }

    /// Takes the lock, and waits for it until there is something to read or the patience has gone.
    ///
    /// - Parameter waiting: Called once with who holds it, if this has to wait.
    /// - Returns: Why it cannot be had; nil when it is held.
    func take(within patience: Duration, unless interrupting: FileDescriptor?, waiting: (String) -> Void) -> String? {
        guard let directory else { return "\(Self.path) cannot be opened, which keeps two runs apart" }
        let start = ContinuousClock.now
        var told = false
        while flock(directory.rawValue, LOCK_EX | LOCK_NB) != 0 {
            if let refusal { return refusal }
            let waited = ContinuousClock.now - start
            if waited >= patience {
                refusal =
                    "another uffd-selftest run, \(holder()), held the lock on \(Self.path) "
                    + "for all \(Int(waited.inSeconds)) seconds of waiting"
                return refusal
            }
            if !told {
                waiting(holder())
                told = true
            }
            // Locks cannot be polled, so look ten times a second, and at once when there is a reason to stop.
            var reason = pollfd(fd: interrupting?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
            let pause = min(0.1, (patience - waited).inSeconds)
            guard poll(&reason, 1, Int32(pause * 1000) + 1) == 0 else {
                return "the wait for another uffd-selftest run was interrupted"
            }
        }
        refusal = nil
        return nil
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
