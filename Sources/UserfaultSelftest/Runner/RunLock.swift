import CSelftestSupport
import Glibc
package import SystemPackage

/// Keeps two runs from changing the host's settings, or from using its huge pages, at the same time.
///
/// The lock lies on a directory of the kernel that every user can open, so that it needs no place to write to. The
/// kernel lets go of it when the process ends. Any user can also keep it for ever: no wait for it is endless, and root,
/// whose runs have a file of their own to keep apart by, goes on without it. A PID namespace has its own /proc: runs in
/// different ones do not see each other.
///
/// A run and its guardian share it: it is held until both have ended, because the one of them that is left puts the host
/// back.
package final class RunLock {
    static let path = "/proc/sys/vm"
    /// How long a run waits for another one, unless its time budget ends earlier.
    static let patience = Duration.seconds(300)
    /// How long root waits for another user, which is longer than a result of theirs has the lock.
    static let patienceWithUsers = Duration.seconds(10)

    /// Nil if this user has none.
    let file: RunFile?
    private let directory: FileDescriptor?
    /// What came of a wait in vain, after which this only looks whether the lock is free.
    private var refusal: String?
    private var ignoresUsers = false

    init() {
        file = RunFile()
        directory = try? FileDescriptor.open(Self.path, .readOnly, options: [.directory, .closeOnExec])
    }

    /// The lock of another process, which has handed over its descriptors.
    package init(directory: FileDescriptor?, file: FileDescriptor?) {
        self.directory = directory
        self.file = file.map(RunFile.init(inherited:))
    }

    /// The descriptors to hand over, each with the option that names it there.
    var descriptors: [(option: String, descriptor: Int32)] {
        [("--directory", directory?.rawValue), ("--file", file?.descriptor.rawValue)].compactMap { option, descriptor in
            descriptor.map { (option, $0) }
        }
    }

    deinit { try? directory?.close() }

    /// Whether this process can have it at all.
    var isThere: Bool { directory != nil || file != nil }

    /// Takes the lock, and waits for it until there is something to read or the patience has gone.
    ///
    /// - Parameter tell: Takes what a person should know, once for a wait.
    /// - Returns: Why it cannot be had; nil when it is held.
    func take(within patience: Duration, unless interrupting: FileDescriptor?, tell: @escaping (String) -> Void)
        -> String?
    {
        guard isThere else {
            return "\(Self.path) cannot be opened, which keeps two runs apart"
        }
        let wait = Wait(
            end: .now + (refusal == nil ? patience : .zero), patience: patience, interrupting: interrupting, tell: tell)
        for (descriptor, path) in [(file?.descriptor, RunFile.path), (directory, Self.path)] {
            guard let descriptor else { continue }
            let usersEnd = path == RunFile.path ? nil : endOfPatienceWithUsers(wait)
            switch wait.take(descriptor, usersEnd: usersEnd) {
            case .held: break
            case .interrupted:
                release()
                return "the wait for another uffd-selftest run was interrupted"
            case .inVain(let holder, let seconds) where usersEnd != nil && !holder.isRoot:
                if !ignoresUsers {
                    tell(
                        "\(holder) of another user has held the lock on \(path) for \(seconds) seconds: "
                            + "this run goes on without it")
                }
                ignoresUsers = true
            case .inVain(let holder, let seconds):
                release()
                refusal =
                    refusal
                    ?? "another uffd-selftest run, \(holder), held the lock on \(path) for all \(seconds) seconds of waiting"
                return refusal
            }
        }
        refusal = nil
        return nil
    }

    /// Nil if other users are waited for as root is.
    private func endOfPatienceWithUsers(_ wait: Wait) -> ContinuousClock.Instant? {
        guard file != nil else { return nil }
        return .now + (ignoresUsers ? .zero : min(Self.patienceWithUsers, wait.patience / 2))
    }

    /// Tells of what could not be undone, and how to have it left as it is.
    func troubles(_ failures: [String]) -> [String] {
        file == nil ? failures : failures.map { "\($0); each run tries it again, unless you delete \(RunFile.path)" }
    }

    /// Lets the next run have it.
    func release() {
        for descriptor in [directory, file?.descriptor] {
            if let descriptor { flock(descriptor.rawValue, LOCK_UN) }
        }
    }
}

extension RunLock {
    /// One wait for the lock.
    private struct Wait {
        enum Outcome {
            case held, interrupted
            case inVain(Holder, seconds: Int)
        }

        let end: ContinuousClock.Instant
        let patience: Duration
        let interrupting: FileDescriptor?
        let tell: (String) -> Void

        /// - Parameter usersEnd: When the wait for a user who is not root ends.
        func take(_ descriptor: FileDescriptor, usersEnd: ContinuousClock.Instant?) -> Outcome {
            let start = ContinuousClock.now
            var told = false
            while flock(descriptor.rawValue, LOCK_EX | LOCK_NB) != 0 {
                let holder = Holder(of: descriptor)
                let end = holder.isRoot ? self.end : min(self.end, usersEnd ?? self.end)
                let now = ContinuousClock.now
                guard now < end else { return .inVain(holder, seconds: Int((now - start).inSeconds)) }
                if !told {
                    let seconds = Int((end - now).inSeconds.rounded(.up))
                    tell(
                        "waiting for another uffd-selftest run, \(holder), which uses this host's settings, "
                            + "for \(seconds) seconds at most")
                    told = true
                }
                // Locks cannot be polled, so look ten times a second, and at once when there is a reason to stop.
                var reason = pollfd(fd: interrupting?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
                let pause = min(0.1, (end - now).inSeconds)
                guard poll(&reason, 1, Int32(pause * 1000) + 1) == 0 else { return .interrupted }
            }
            return .held
        }
    }

    /// The process that the kernel names as the holder.
    private struct Holder: CustomStringConvertible {
        private(set) var description = "process unknown"
        /// Whether it is root's, as far as is known.
        private(set) var isRoot = true

        init(of descriptor: FileDescriptor) {
            var file = stat()
            guard fstat(descriptor.rawValue, &file) == 0 else { return }
            // `1: FLOCK  ADVISORY  WRITE 1234 00:15:4026531842 0 EOF`
            let inode = ":\(file.st_ino)"
            for line in (ProcFile.text("/proc/locks") ?? "").split(separator: "\n") {
                let words = line.split(separator: " ")
                guard words.count > 5, words[1] == "FLOCK", words[5].hasSuffix(inode) else { continue }
                let directory = "/proc/\(words[4])"
                description = "process \(words[4])" + (ProcFile.line("\(directory)/comm").map { " (\($0))" } ?? "")
                var process = stat()
                isRoot = stat(directory, &process) != 0 || process.st_uid == 0
                return
            }
        }
    }
}
