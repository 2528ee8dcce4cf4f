import ArgumentParser
import CPagerSupport
import Glibc
import Synchronization

/// How the program ends, by the numbers of `sysexits.h`.
extension ExitCode {
    /// A file that was named cannot be read (EX_NOINPUT).
    static let unreadable = ExitCode(66)
    /// This host cannot do what was asked (EX_UNAVAILABLE).
    static let unavailable = ExitCode(69)
    /// The kernel refused (EX_OSERR).
    static let system = ExitCode(71)
    /// A socket or a file cannot be made (EX_CANTCREAT).
    static let uncreatable = ExitCode(73)
    /// Output cannot be written (EX_IOERR).
    static let unwritable = ExitCode(74)
    /// This user may not do it (EX_NOPERM).
    static let notAllowed = ExitCode(77)

    /// What the manuals of commands say that serve clients.
    static let ofServers = """
        Exit codes: 0 all clients were served to their end; 1 one of them was not; 64 wrong usage; 66 a file cannot be read; \
        69 this host cannot do what was asked; 70 the server died and its clients were killed; 71 the kernel refused; 73 a \
        socket or file cannot be made; 74 output cannot be written; 75 with --fd-store, the server died, and systemd is to \
        start a successor.
        """
}

/// The descriptors that the program is started with.
enum Standard {
    /// Makes a reader that goes away, and a file that would be too large, errors of the write, and keeps other files off the standard descriptors.
    static func prepare() {
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        // Each client takes some, and nothing here waits with select(2), which the lower limit is for. One that cannot be
        // raised stays what it is.
        _ = cps_raise_file_limit()
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            // A closed standard output cannot be written: what keeps its place must not be writable either.
            _ = open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Writes to standard output.
    ///
    /// - Throws: ``ExitCode/unwritable`` unless all of it was written.
    static func write(_ text: String) throws {
        guard writeAll(Array(text.utf8)[...], to: STDOUT_FILENO) else {
            let error = errno
            complain("standard output cannot be written: \(String(cString: strerror(error)))")
            throw ExitCode.unwritable
        }
    }

    private struct Behind {
        /// Lines that were dropped since the last one that was written.
        var lines = 0
        /// Whether the reader has let us wait already.
        var isSlow = false
    }

    private static let behind = Mutex(Behind())

    /// Writes a line to standard error, unless its reader does not read: nobody waits for the log, but once and shortly.
    ///
    /// What is dropped is counted, and told as soon as something can be written.
    static func writeLine(_ text: String) {
        behind.withLock { behind in
            if behind.lines > 0 {
                guard writePart("uffd-pager: warning: lines of the log were dropped count=\(behind.lines)\n", &behind)
                else {
                    behind.lines += 1
                    return
                }
                behind.lines = 0
            }
            if !writePart("\(text)\n", &behind) { behind.lines += 1 }
        }
    }

    /// Writes in parts for which a pipe or socket has room when it says that it has any.
    private static func writePart(_ text: String, _ behind: inout Behind) -> Bool {
        var left = Array(text.utf8)[...]
        while !left.isEmpty {
            var file = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
            guard poll(&file, 1, behind.isSlow ? 0 : 100) > 0 else {
                behind.isSlow = true
                return false
            }
            guard writeAll(left.prefix(Int(PIPE_BUF)), to: STDERR_FILENO) else { return false }
            left = left.dropFirst(Int(PIPE_BUF))
        }
        behind.isSlow = false
        return true
    }

    static func complain(_ text: String) { writeLine("uffd-pager: \(text)") }

    private static func writeAll(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) -> Bool {
        var left = bytes
        while !left.isEmpty {
            let written = left.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress!, $0.count) }
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { return false }
            left = left.dropFirst(written)
        }
        return true
    }
}

/// A failure that ends the program: one line for the person, and the exit code.
struct Failure: Error, CustomStringConvertible {
    let code: ExitCode
    let description: String

    init(_ code: ExitCode, _ description: String) {
        self.code = code
        self.description = description
    }
}
