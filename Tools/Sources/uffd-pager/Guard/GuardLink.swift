import ArgumentParser
import Glibc
import Logging
import SystemPackage
import UserfaultFD
import UserfaultHandoff

/// The server's end of the socket to its guard.
final class GuardLink: Sendable {
    /// The variable that holds the socket's number in the server's environment.
    static let variable = "UFFD_PAGER_GUARD"

    private let socket: FileDescriptor
    private let logger: Logger

    /// Whether this process has a guard.
    static var isThere: Bool { getenv(variable) != nil }

    /// - Returns: `nil` if nobody guards this process.
    init?(logger: Logger) {
        guard let text = getenv(Self.variable), let number = Int32(String(cString: text)), fcntl(number, F_GETFD) >= 0
        else { return nil }
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        unsetenv(Self.variable)
        socket = FileDescriptor(rawValue: number)
        self.logger = logger
    }

    /// Has a client's descriptors kept, before its first page is filled.
    ///
    /// - Throws: `HandoffError`, `UserfaultError`: without a guard, the client must not be served.
    func keep(_ id: Int, _ memory: borrowing HandedMemory) throws {
        let (uffd, process) = try memory.duplicateDescriptors()
        let files = [uffd, process].map(FileDescriptor.init(rawValue:))
        defer { for file in files { try? file.close() } }
        try keep(id, uffd: files[0], process: files[1])
    }

    /// Has a client's userfaultfd and pidfd kept, which stay the caller's.
    func keep(_ id: Int, uffd: FileDescriptor, process: FileDescriptor) throws {
        try send(.keep(UInt64(id)), [uffd, process])
    }

    /// Tells that a client has ended, or goes on by itself.
    func forget(_ id: Int) {
        do {
            try send(.forget(UInt64(id)), [])
        } catch {
            logger.error("the guard is gone", metadata: ["error": "\(error)"])
        }
    }

    private func send(_ message: GuardMessage, _ files: [FileDescriptor]) throws {
        try DescriptorPassing.send(message.bytes.span.bytes, descriptors: files, over: socket)
    }
}

/// A command that serves clients: it runs in a process of its own, under a ``Guard``.
protocol GuardedCommand: AsyncParsableCommand {}
