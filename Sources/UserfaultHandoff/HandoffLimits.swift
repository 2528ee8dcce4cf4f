/// How much a peer may ask for.
public struct HandoffLimits: Hashable, Sendable {
    /// The most bytes of one message.
    public var messageBytes: Int

    /// The most regions of one client: a `PagerState` has places for 4000.
    public var regions: Int

    /// The most connections of one socket that are sending their messages at the same time; further ones wait.
    public var connections: Int

    /// The most of them that belong to one user: a further one takes the place of the oldest, which is ended.
    public var connectionsPerUser: Int

    /// How long a peer may take for its message.
    public var handshakeTime: Duration

    /// Limits that suit virtual machines.
    public init(
        messageBytes: Int = 1 << 20,
        regions: Int = 4000,
        connections: Int = 256,
        connectionsPerUser: Int = 64,
        handshakeTime: Duration = .seconds(10)
    ) {
        precondition(
            messageBytes > 0 && regions > 0 && connections > 0 && connectionsPerUser > 0 && handshakeTime > .zero,
            "a limit is more than zero")
        self.messageBytes = messageBytes
        self.regions = regions
        self.connections = connections
        self.connectionsPerUser = connectionsPerUser
        self.handshakeTime = handshakeTime
    }
}
