import CSelftestSupport
import Glibc
import SystemPackage

/// What the C functions answer: a value, or the negated errno, which is thrown.
@discardableResult
func checked(_ answer: Int32) throws(Errno) -> Int32 {
    guard answer >= 0 else { throw Errno(rawValue: -answer) }
    return answer
}

/// Starts this program anew.
///
/// See `css_spawn_self`.
func spawnSelf(
    _ arguments: [String], environment: [String], output: Int32, descriptors: [Int32]
) throws(Errno) -> Int32 {
    var inherited: [String] = []
    var variable = environ
    while let text = variable.pointee {
        inherited.append(String(cString: text))
        variable += 1
    }
    // A crash is one result; Swift's backtracer would take seconds to describe it.
    let variables = inherited.filter { !$0.hasPrefix("SWIFT_BACKTRACE=") } + ["SWIFT_BACKTRACE=enable=no"] + environment
    let argv = arguments.map { strdup($0) } + [nil]
    let envp = variables.map { strdup($0) } + [nil]
    defer { (argv + envp).forEach { free($0) } }
    return try checked(css_spawn_self(argv, envp, output, descriptors, Int32(descriptors.count)))
}

/// Keeps descriptors that this program was started with, other than the standard ones, from the programs that it starts.
func closeInheritedDescriptorsOnExec() {
    for descriptor in ProcFile.entries("/proc/self/fd").compactMap({ Int32($0) }) where descriptor > STDERR_FILENO {
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
}

/// Takes the exit of a child that has ended; nil when it has not, or is no child.
func reap(_ pid: Int32) -> css_exit? {
    var end = css_exit()
    return css_reap(pid, &end) == 0 && end.pid == pid ? end : nil
}

enum Processes {
    /// A descriptor that becomes readable when a child ends; nil if a filter refuses such descriptors.
    static func pidfd(of pid: Int32) throws(Errno) -> FileDescriptor? {
        let answer = css_pidfd_open(pid)
        guard ![-EPERM, -ENOSYS].contains(answer) else { return nil }
        return FileDescriptor(rawValue: try checked(answer))
    }

    /// Waits until a child has ended that was killed, and takes its exit; one that waits in the kernel may stay.
    static func waitForEnd(of pid: Int32, _ pidfd: FileDescriptor?) -> Bool {
        let patience = Duration.seconds(5)
        if let pidfd {
            var wait = pollfd(fd: pidfd.rawValue, events: Int16(POLLIN), revents: 0)
            return poll(&wait, 1, Int32(patience.inSeconds * 1000)) > 0 && reap(pid) != nil
        }
        let deadline = ContinuousClock.now + patience
        while reap(pid) == nil {
            guard ContinuousClock.now < deadline else { return false }
            poll(nil, 0, 1)
        }
        return true
    }
}

func readSignal(_ descriptor: FileDescriptor) -> Int32? {
    let signal = css_read_signal(descriptor.rawValue)
    return signal == 0 ? nil : signal
}

enum Pipe {
    static func open() throws(Errno) -> (readEnd: FileDescriptor, writeEnd: FileDescriptor) {
        var ends: [Int32] = [0, 0]
        try checked(css_pipe(&ends))
        return (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
    }

    /// Hands on what is in a nonblocking pipe now.
    static func readAvailable(_ descriptor: FileDescriptor, _ body: (UnsafeRawBufferPointer) -> Void) {
        withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 1) { buffer in
            while let count = try? descriptor.read(into: buffer), count > 0 {
                body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
        }
    }
}

extension Duration {
    var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}

enum SignalName {
    private static let names: [Int32: String] = [
        SIGSEGV: "SIGSEGV", SIGBUS: "SIGBUS", SIGABRT: "SIGABRT", SIGILL: "SIGILL", SIGFPE: "SIGFPE",
        SIGTRAP: "SIGTRAP",
        SIGKILL: "SIGKILL", SIGTERM: "SIGTERM", SIGSYS: "SIGSYS", SIGPIPE: "SIGPIPE", SIGALRM: "SIGALRM",
        SIGINT: "SIGINT", SIGHUP: "SIGHUP", SIGUSR1: "SIGUSR1", SIGXCPU: "SIGXCPU", SIGXFSZ: "SIGXFSZ",
    ]

    static func of(_ signal: Int32) -> String { names[signal] ?? "signal \(signal)" }
}
