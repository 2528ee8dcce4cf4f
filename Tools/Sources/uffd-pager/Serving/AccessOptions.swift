import ArgumentParser
import Glibc
import UserfaultHandoff

/// Who may connect.
struct AccessOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Accept processes of this user only, by name or number. Can be repeated. Without this and --allow-group, \
            processes of this program's user and of root.
            """, valueName: "user"))
    var allowUser: [String] = []

    @Option(
        help: ArgumentHelp(
            "Accept processes with this effective group only, by name or number. Can be repeated.", valueName: "group"))
    var allowGroup: [String] = []

    @Option(
        help: ArgumentHelp(
            "The permissions of the socket, in octal; by default, what the umask leaves.", valueName: "mode"))
    var socketMode: SocketMode?

    func validate() throws { _ = try peers }

    /// Who may connect.
    var peers: PeerPolicy { get throws { PeerPolicy(allowingUsers: try users, groups: try groups) } }

    /// The users, by number; `nil` if none is named.
    var users: [UInt32]? {
        get throws {
            let users = try allowUser.map { name in
                guard let id = UInt32(name) ?? getpwnam(name)?.pointee.pw_uid else {
                    throw ValidationError("there is no user '\(name)'")
                }
                return id
            }
            return users.isEmpty ? nil : users
        }
    }

    /// The groups, by number; `nil` if none is named.
    var groups: [UInt32]? {
        get throws {
            let groups = try allowGroup.map { name in
                guard let id = UInt32(name) ?? getgrnam(name)?.pointee.gr_gid else {
                    throw ValidationError("there is no group '\(name)'")
                }
                return id
            }
            return groups.isEmpty ? nil : groups
        }
    }
}

extension PeerPolicy {
    /// Who may connect if these are named: this program's user and root if nobody is.
    init(allowingUsers users: [UInt32]?, groups: [UInt32]?) {
        let others: Set<UInt32>? = groups == nil ? [0, geteuid()] : nil
        self.init(users: users.map(Set.init) ?? others, groups: groups.map(Set.init))
    }
}

/// Permissions, in octal.
struct SocketMode: ExpressibleByArgument {
    let value: UInt32

    init?(argument: String) {
        guard let value = UInt32(argument, radix: 8), (1...0o777).contains(value) else { return nil }
        self.value = value
    }
}
