import CUserfaultFD
import SystemPackage

@testable import UserfaultFD

/// What this process has open and mapped.
enum Descriptors {
    static func isOpen(_ number: Int32) -> Bool {
        cuffd_status_flags(number) >= 0
    }

    /// Whether `execve` would close it: from `/proc`, which shows the flag.
    static func isCloseOnExec(_ number: Int32) -> Bool {
        guard let text = ProcFile.text("/proc/self/fdinfo/\(number)"),
            let flags = ProcFile.value(of: "flags:", in: text).flatMap({ Int32($0, radix: 8) })
        else { return false }
        return flags & CUFFD_O_CLOEXEC != 0
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
        var sockets: (Int32, Int32) = (-1, -1)
        let answer = withUnsafeMutableBytes(of: &sockets) {
            cuffd_socketpair($0.assumingMemoryBound(to: Int32.self).baseAddress)
        }
        precondition(answer == 0)
        first = FileDescriptor(rawValue: sockets.0)
        second = FileDescriptor(rawValue: sockets.1)
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
        var sockets: (Int32, Int32) = (-1, -1)
        let answer = withUnsafeMutableBytes(of: &sockets) {
            cuffd_socketpair($0.assumingMemoryBound(to: Int32.self).baseAddress)
        }
        precondition(answer == 0)
        number = sockets.0
        other = OwnedDescriptor(adopting: sockets.1)
    }

    /// Not asked of the number, which another test's descriptor may have by now.
    var isClosed: Bool {
        CShort(cuffd_poll(other.rawValue, CUFFD_POLLIN, 0)) & CUFFD_POLLHUP != 0
    }
}
