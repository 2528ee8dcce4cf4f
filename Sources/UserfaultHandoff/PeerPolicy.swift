public import UserfaultFD

/// Who may hand memory over.
///
/// The kernel vouches for what is compared: the effective user and group of the process that connected.
public struct PeerPolicy: Hashable, Sendable {
    /// Users that are allowed, by number; `nil` for every user.
    public var users: Set<UInt32>?

    /// Groups that are allowed, by number; `nil` for every group.
    public var groups: Set<UInt32>?

    /// Processes that are allowed, by number; `nil` for every process.
    public var processes: Set<Int32>?

    /// Allows peers that match every list.
    public init(users: Set<UInt32>? = nil, groups: Set<UInt32>? = nil, processes: Set<Int32>? = nil) {
        self.users = users
        self.groups = groups
        self.processes = processes
    }

    /// Everybody that the permissions of the socket let in.
    public static var everybody: PeerPolicy { PeerPolicy() }

    /// Whether a peer is allowed.
    public func allows(_ peer: PeerCredentials) -> Bool {
        allows(user: peer.user, group: peer.group, process: peer.process)
    }

    /// Whether a peer is allowed, by its numbers.
    public func allows(user: UInt32, group: UInt32, process: Int32) -> Bool {
        users?.contains(user) ?? true && groups?.contains(group) ?? true && processes?.contains(process) ?? true
    }
}
