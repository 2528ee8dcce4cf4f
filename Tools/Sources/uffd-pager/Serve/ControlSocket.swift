import ArgumentParser
import Glibc
import Synchronization
import UserfaultHandoff

/// The path of the control socket, which the HTTP server binds: nobody connects before it has its permissions.
///
/// The server binds it in a folder that only this user can enter. It comes to its path when it is done.
final class ControlSocket: Sendable {
    let path: String
    private let folder: String
    /// The folder, by which paths in it are short, whatever its own is.
    ///
    /// Open as long as the server may look for its socket.
    private let opened: Int32
    /// Which file of ours is at the path.
    private let published: Mutex<Identity?>

    private struct Identity: Equatable {
        let device: dev_t
        let inode: ino_t

        init?(_ path: String) {
            var status = stat()
            guard lstat(path, &status) == 0 else { return nil }
            device = status.st_dev
            inode = status.st_ino
        }
    }

    private static let name = "s"

    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    init(_ path: String) throws {
        try SocketPath.check(path, .uncreatable)
        // Whether somebody listens there, or it is not a socket, is found out as for every other socket. What is bound stays:
        // clients see that nobody listens yet, and wait.
        do { _ = try HandoffListener(path: path) } catch {
            throw Failure(.uncreatable, SocketPath.complaint(path, error))
        }
        published = Mutex(Identity(path))
        let parent = path.lastIndex(of: "/").map { path[...$0] } ?? ""
        var template = Array("\(parent).XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            unlink(path)
            throw Self.failure(path)
        }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        opened = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard opened >= 0 else {
            let failure = Self.failure(path)
            rmdir(folder)
            unlink(path)
            throw failure
        }
        self.path = path
    }

    deinit {
        clean()
        close(opened)
    }

    /// Where the server binds it.
    var place: String { "/proc/self/fd/\(opened)/\(Self.name)" }

    /// Lets others connect.
    ///
    /// - Parameter mode: The permissions; `nil` for what the umask has left.
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``, `HandoffError`.
    func publish(mode: UInt32?) throws {
        defer { clean() }
        // Not by a path that goes through a link.
        let bound = "\(folder)/\(Self.name)"
        if let mode { try HandoffListener.setMode(mode, ofSocketAt: bound) }
        try published.withLock { published in
            let identity = Identity(bound)
            // Nobody else's is replaced.
            let isOurs = published != nil && Identity(path) == published
            guard (isOurs ? rename(bound, path) : link(bound, path)) == 0 else { throw Self.failure(path) }
            published = identity
        }
    }

    /// Removes it, unless another is at its path by now.
    func remove() {
        clean()
        guard let identity = published.withLock({ $0.take() }), Identity(path) == identity else { return }
        unlink(path)
    }

    private func clean() {
        unlink("\(folder)/\(Self.name)")
        rmdir(folder)
    }

    private static func failure(_ path: String) -> Failure {
        Failure(.uncreatable, "\(path): \(String(cString: strerror(errno)))")
    }
}
