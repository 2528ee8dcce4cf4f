import Glibc
import SystemPackage

@testable import UserfaultFD

/// What this process has open and mapped.
enum Descriptors {
    static func isOpen(_ number: Int32) -> Bool {
        fcntl(number, F_GETFL) >= 0
    }

    /// Whether `execve` would close it: from `/proc`, which shows the flag.
    static func isCloseOnExec(_ number: Int32) -> Bool {
        guard let text = ProcFile.text("/proc/self/fdinfo/\(number)"),
            let flags = ProcFile.value(of: "flags:", in: text).flatMap({ Int32($0, radix: 8) })
        else { return false }
        return flags & O_CLOEXEC != 0
    }

    /// The open descriptors of this process.
    static func open() -> Set<Int32> {
        Set((0..<1024).filter { isOpen($0) })
    }

    /// The lines of `/proc/self/maps` that stand for memory of these tests: memory files and anonymous memory that the
    /// allocator did not make.
    static func mappedFiles() -> Int {
        (ProcFile.text("/proc/self/maps", limit: 1 << 22) ?? "").split(separator: "\n")
            .count { $0.contains("memfd:") || $0.contains("userfaultfd") }
    }
}

/// A connected pair of sockets.
struct SocketPair: ~Copyable {
    let first: FileDescriptor
    let second: FileDescriptor

    init() {
        let pair = newPair()
        first = FileDescriptor(rawValue: pair.first)
        second = FileDescriptor(rawValue: pair.second)
    }

    deinit {
        try? first.close()
        try? second.close()
    }
}

/// A descriptor to give away, of which it can be told whether every copy of it was closed.
struct Watched: ~Copyable {
    let number: Int32
    private let other: OwnedDescriptor

    init() {
        let pair = newPair()
        number = pair.first
        other = OwnedDescriptor(adopting: pair.second)
    }

    /// Not asked of the number, which another test's descriptor may have by now.
    var isClosed: Bool {
        let ready = (try? poll(other.rawValue, until: Deadline(after: .zero))) ?? 0
        return ready & Int16(POLLHUP) != 0
    }
}

private func newPair() -> (first: Int32, second: Int32) {
    var sockets: [Int32] = [-1, -1]
    precondition(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
    return (sockets[0], sockets[1])
}

extension UserfaultFD {
    /// One whose descriptor is closed and has a high number: other threads of the test open files, which would take a low one.
    static func closed() throws -> UserfaultFD {
        let opened = try UserfaultFD()
        let number = opened.withUnsafeDescriptor { fcntl($0.rawValue, F_DUPFD_CLOEXEC, 900) }
        let uffd = try UserfaultFD(adopting: number, features: opened.enabledFeatures)
        _ = Glibc.close(number)
        return uffd
    }
}
