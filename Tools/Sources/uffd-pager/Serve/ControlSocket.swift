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
    /// Which file was put at the path.
    private let published = Mutex<Identity?>(nil)

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
        // Whether somebody listens there, or it is not a socket, is found out as for every other socket.
        do { try HandoffListener(path: path).removePath() } catch {
            throw Failure(.uncreatable, "\(path): \(error)")
        }
        let parent = path.lastIndex(of: "/").map { path[...$0] } ?? ""
        var template = Array("\(parent).XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Self.failure(path) }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        opened = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard opened >= 0 else {
            let failure = Self.failure(path)
            rmdir(folder)
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
        // Unlike renaming, this replaces nobody else's.
        guard link(bound, path) == 0 else { throw Self.failure(path) }
        published.withLock { $0 = Identity(bound) }
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
