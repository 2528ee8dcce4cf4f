import ArgumentParser
import Glibc
import UserfaultHandoff

/// Who may connect.
struct AccessOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Accept processes of this user, by name or number; by default of this program's user and root. Can be repeated.",
            valueName: "user"))
    var allowUser: [String] = []

    @Option(
        help: ArgumentHelp(
            "Accept processes of this group only, by name or number. Can be repeated.", valueName: "group"))
    var allowGroup: [String] = []

    func validate() throws { _ = try peers }

    /// Who may connect.
    var peers: PeerPolicy {
        get throws {
            let users = try allowUser.map { name in
                guard let id = UInt32(name) ?? getpwnam(name)?.pointee.pw_uid else {
                    throw ValidationError("there is no user '\(name)'")
                }
                return id
            }
            let groups = try allowGroup.map { name in
                guard let id = UInt32(name) ?? getgrnam(name)?.pointee.gr_gid else {
                    throw ValidationError("there is no group '\(name)'")
                }
                return id
            }
            return PeerPolicy(
                users: users.isEmpty ? [0, geteuid()] : Set(users), groups: groups.isEmpty ? nil : Set(groups))
        }
    }
}
