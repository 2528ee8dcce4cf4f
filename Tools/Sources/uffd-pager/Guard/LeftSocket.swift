import Glibc
import SystemPackage

/// A file of a socket, which another one may replace at its path.
struct SocketIdentity: Equatable {
    private let device: UInt64
    private let inode: UInt64

    /// The socket that is at a path now.
    init?(at path: String) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// Whether nobody can say what is at a path: a folder on the way is another user's.
    static func isHidden(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) != 0 else { return false }
        return errno != ENOENT && errno != ENOTDIR
    }

    /// What a memory file is called that is kept with a socket: its content is the machine's.
    static func name(ofFile name: String, _ identity: SocketIdentity?) -> String {
        guard let identity else { return name }
        return "\(name).\(String(identity.device, radix: 16)).\(String(identity.inode, radix: 16))"
    }

    /// - Returns: `nil` for a file that does not tell: one of an earlier version, or of systemd's socket.
    init?(inNameOfFile number: Int32) {
        guard DescriptorKind(of: number) == .record,
            let words = DescriptorKind.link(of: number).split(separator: " ").first?.split(separator: "."),
            words.count == 3, let device = UInt64(words[1], radix: 16), let inode = UInt64(words[2], radix: 16)
        else { return nil }
        (self.device, self.inode) = (device, inode)
    }
}

/// A socket of a machine that a server has left, which has died.
struct LeftSocket {
    let number: Int32
    /// The path that it was bound to.
    let bound: String
    let isShut: Bool
    /// Which files it may be; none if an earlier version has left it.
    let identities: [SocketIdentity]

    enum State: Equatable {
        /// Clients connect to it at the path.
        case useful
        /// Nobody can connect any more.
        case shut
        /// It was at the path, and something else is, or nothing.
        case replaced
        /// It is at another path: the one to remove, if that is known.
        case elsewhere(String?)
    }

    /// What a machine that is to listen at a path has of it.
    func state(at path: String) -> State {
        if isShut { return .shut }
        let place = SocketPath.place(ofBound: bound)
        if identities.isEmpty || SocketIdentity.isHidden(path) {
            guard let place else {
                // Its name is not known: in its folder, it is taken for the one that is there.
                let isHere = SocketPath.isSameFolder(bound, path) && SocketIdentity(at: path) != nil
                return isHere ? .useful : .elsewhere(nil)
            }
            return SocketPath.isSame(place, path) ? .useful : .elsewhere(place)
        }
        if let now = SocketIdentity(at: path), identities.contains(now) { return .useful }
        guard let place else { return SocketPath.isSameFolder(bound, path) ? .replaced : .elsewhere(nil) }
        if SocketPath.isSame(place, path) { return .replaced }
        // What is there by now may be another program's.
        return .elsewhere(SocketIdentity(at: place).map(identities.contains) == true ? place : nil)
    }
}
