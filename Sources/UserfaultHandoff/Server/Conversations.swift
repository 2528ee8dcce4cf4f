internal import UserfaultFD

/// The conversations of a server, by their tokens: how many each socket has, and each of its users.
struct Conversations {
    private struct User: Hashable {
        let listener: UInt64
        let number: UInt32
    }

    private var all: [UInt64: Conversation] = [:]
    private var ofListener: [UInt64: Int] = [:]
    /// In the order in which they have begun.
    private var ofUser: [User: [UInt64]] = [:]

    subscript(_ token: UInt64) -> Conversation? { all[token] }

    /// The next time at which one of them must be done.
    var nextDeadline: Deadline {
        all.values.min { $0.deadline.instant < $1.deadline.instant }?.deadline ?? .never
    }

    var tokens: [UInt64] { Array(all.keys) }

    func count(ofListener listener: UInt64) -> Int { ofListener[listener] ?? 0 }

    /// The oldest one of a user at a socket, if there are as many.
    func oldest(of user: UInt32, at listener: UInt64, ifAtLeast limit: Int) -> UInt64? {
        guard let own = ofUser[User(listener: listener, number: user)], own.count >= limit else { return nil }
        return own.first
    }

    mutating func insert(_ conversation: Conversation, as token: UInt64) {
        all[token] = conversation
        ofListener[conversation.listener, default: 0] += 1
        ofUser[User(listener: conversation.listener, number: conversation.peer.user), default: []].append(token)
    }

    mutating func remove(_ token: UInt64) {
        guard let conversation = all.removeValue(forKey: token) else { return }
        let listener = conversation.listener
        ofListener[listener]! -= 1
        if ofListener[listener] == 0 { ofListener[listener] = nil }
        let user = User(listener: listener, number: conversation.peer.user)
        ofUser[user]!.removeAll { $0 == token }
        if ofUser[user]!.isEmpty { ofUser[user] = nil }
    }
}
