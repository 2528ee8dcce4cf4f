import ArgumentParser
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultHandoff

/// Where sockets are.
enum SocketPath {
    /// The longest path of a Unix socket, in bytes.
    private static let limit = 107

    /// - Throws: ``Failure`` with this code for a path that no socket can have.
    static func check(_ path: String, _ code: ExitCode) throws {
        guard path.utf8.count > limit else { return }
        throw Failure(
            code,
            "\(path) is longer than the \(limit) bytes that the path of a socket may have; use a shorter one, such as one below "
                + "/run, or a relative one")
    }

    /// Why nobody can listen at a path, and what to do about it.
    static func complaint(_ path: String, _ error: any Error) -> String {
        guard case HandoffError.kernel(let cause) = error else { return "\(path): \(error)" }
        return switch cause.errno {
        case .addressInUse where Self.isSocket(path):
            "\(path): another program listens there; stop it ('ss -xlp | grep -F \(path.split(separator: "/").last ?? "")' names it), or use another path"
        case .addressInUse: "\(path): this exists, and is not a socket; remove it, or use another path"
        case .noSuchFileOrDirectory: "\(path): its folder does not exist; make it first"
        case .permissionDenied: "\(path): this user (\(geteuid())) may not make a socket in this folder"
        default: "\(path): \(error)"
        }
    }

    private static func isSocket(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }
}
