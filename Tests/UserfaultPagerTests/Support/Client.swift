import CUserfaultFD
import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Runs a body in a child of `fork`: the body may load and store, and must not allocate.
///
/// - Returns: The child's exit status, or the negative signal that ended it, or `nil` where it took too long.
func inFork(seconds: Int = 20, _ body: () -> CInt) -> Int? {
    let pid = fork()
    if pid == 0 { _exit(body()) }
    return end(of: pid, seconds: seconds)
}

/// How a child process ends: its exit code, or less than nothing for the signal that ended it.
///
/// - Returns: `nil` if it takes too long; then it is killed.
func end(of pid: pid_t, seconds: Int = 20) -> Int? {
    let process = try? ProcessHandle(id: pid)
    let ended = (try? process?.waitForExit(timeout: .seconds(seconds))) ?? false
    if !ended { kill(pid, SIGKILL) }
    var status: CInt = 0
    waitpid(pid, &status, 0)
    guard ended else { return nil }
    return status & 0x7f == 0 ? Int((status >> 8) & 0xff) : -Int(status & 0x7f)
}

/// A child process that sends its userfaultfd here and then reads its memory, page by page, when it is told to.
///
/// Its body makes system calls only.
struct Client: ~Copyable {
    let pid: pid_t
    let range: AddressRange
    private let socket: CInt

    /// The child exits with the number of pages that do not hold what ``NumberedSource`` says, or becomes another
    /// program.
    static func start(_ mapping: borrowing Mapping, thenExecutes: Bool = false) throws -> Client {
        let range = mapping.range
        return try fork(serving: range) { socket, sleep in
            var byte: UInt8 = 0
            guard Glibc.read(socket, &byte, 1) == 1 else { _exit(100) }
            var wrong: CInt = 0
            for offset in stride(from: 0, to: range.count, by: pageBytes)
            where range.loadWord(offset) != NumberedSource.word(offset) { wrong += 1 }
            if thenExecutes, wrong == 0 { execv("/bin/sleep", sleep) }
            _exit(min(wrong, 99))
        }
    }

    /// A child that forks when it is told to; what the child of the child finds in the second page is its exit status.
    static func startForking(_ range: AddressRange) throws -> Client {
        try fork(serving: range, features: .eventFork) { socket, _ in
            var byte: UInt8 = 0
            guard Glibc.read(socket, &byte, 1) == 1 else { _exit(100) }
            let pid = Glibc.fork()
            if pid == 0 {
                let word = range.loadWord(pageBytes)
                _exit(word == NumberedSource.word(pageBytes) ? CInt(contentWord) : word == 0 ? 11 : 12)
            }
            var status: CInt = 0
            waitpid(pid, &status, 0)
            _exit(status & 0x7f == SIGBUS ? CInt(busError) : status >> 8)
        }
    }

    static var contentWord: Int { 9 }
    static var busError: Int { 7 }

    /// Makes the child, which sends its userfaultfd.
    ///
    /// - Parameters:
    ///   - features: What the userfaultfd reports.
    ///   - body: What it does then, with its end of the socket and the arguments of a program that sleeps.
    static func fork(
        serving range: AddressRange, features: UserfaultFD.Features = [],
        _ body: (CInt, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Never
    ) throws -> Client {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("/bin/sleep"), strdup("600"), nil]
        defer { for argument in arguments { free(argument) } }
        let pid = Glibc.fork()
        if pid == 0 {
            var supported: UInt64 = 0
            var ioctls: UInt64 = 0
            var byte: UInt8 = 1
            var uffd = cuffd_userfaultfd(CUFFD_O_NONBLOCK | CUFFD_O_CLOEXEC | CInt(CUFFD_USER_MODE_ONLY))
            guard uffd >= 0, cuffd_api(uffd, features.rawValue, &supported, &ioctls) == 0,
                cuffd_send_descriptors(sockets[1], &byte, 1, &uffd, 1) == 1, Glibc.close(uffd) == 0
            else { _exit(100) }
            body(sockets[1], &arguments)
        }
        _ = Glibc.close(sockets[1])
        return Client(pid: pid, range: range, socket: sockets[0])
    }

    deinit {
        _ = Glibc.close(socket)
    }

    func receive() throws -> UserfaultFD {
        var message = try DescriptorPassing.receive(from: FileDescriptor(rawValue: socket))
        return try message.descriptors.takeUserfaultFD()
    }

    func go() {
        var byte: UInt8 = 1
        _ = Glibc.write(socket, &byte, 1)
    }

    /// Its exit status, or the negative signal that ended it; `nil` where it does not end.
    func wait(seconds: Int32 = 20) -> Int? {
        let process = try? ProcessHandle(id: pid)
        guard (try? process?.waitForExit(timeout: .seconds(seconds))) ?? false else {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
            return nil
        }
        var status: CInt = 0
        waitpid(pid, &status, 0)
        return status & 0x7f == 0 ? Int((status >> 8) & 0xff) : -Int(status & 0x7f)
    }
}
