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
            "\(path): another program listens there; stop it ('ss -xlp | grep -F \(path.split(separator: "/").last ?? "")' "
                + "names it), or use another path"
        case .addressInUse: "\(path): this exists, and is not a socket; remove it, or use another path"
        case .noSuchFileOrDirectory: "\(path): its folder does not exist; make it first"
        case .permissionDenied: "\(path): this user (\(geteuid())) may not make a socket in this folder"
        default: "\(path): \(error)"
        }
    }

    /// The path at which clients connect to a socket, by the one that it was bound to: a socket of this program has got its path
    /// when it listened, and was bound to `.NAME.12345678` beside it.
    ///
    /// - Returns: `nil` if that is not known: a long name is left out.
    static func place(ofBound path: String) -> String? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard let last = parts.last, last.hasPrefix("."), last.count > 9 else {
            return parts.last?.hasPrefix(".") == true ? nil : path
        }
        let number = last.suffix(8)
        guard last.dropLast(8).hasSuffix("."), number.allSatisfy(\.isHexDigit) else { return path }
        let name = last.dropFirst().dropLast(9)
        return name.isEmpty ? nil : (parts.dropLast() + [name]).joined(separator: "/")
    }

    /// Whether two paths are one, however they are spelled: the same name in the same folder.
    static func isSame(_ one: String, _ other: String) -> Bool {
        one == other || parts(of: one).name == parts(of: other).name && isSameFolder(one, other)
    }

    /// Whether two paths are in the same folder.
    static func isSameFolder(_ one: String, _ other: String) -> Bool {
        var (first, second) = (stat(), stat())
        guard stat(parts(of: one).folder, &first) == 0, stat(parts(of: other).folder, &second) == 0 else {
            return false
        }
        return first.st_dev == second.st_dev && first.st_ino == second.st_ino
    }

    private static func parts(of path: String) -> (folder: String, name: Substring) {
        guard let slash = path.lastIndex(of: "/") else { return (".", path[...]) }
        return (String(path[...slash]), path[path.index(after: slash)...])
    }

    private static func isSocket(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
    }
}
