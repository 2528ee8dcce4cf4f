#if NBD
/// How an ``NBDSource`` connects, and how much it asks for at once.
public struct NBDConfiguration: Sendable {
    /// The most connections to the server, 1 to ``maximumConnections``.
    ///
    /// One, if the server does not say that its connections agree with each other (`NBD_FLAG_CAN_MULTI_CONN`).
    public var connections: Int

    /// The most of ``connections``.
    public static var maximumConnections: Int { 256 }

    /// The most requests that are outstanding on one connection; one that takes several commands is sent whole.
    public var requestsPerConnection: Int

    /// The most bytes that are read by one request for neighbouring pages.
    ///
    /// The size that the server prefers, if that is more; never more than the server allows.
    public var coalescedBytes: Int

    /// The most memory for content that is on its way, in bytes.
    ///
    /// A request that is larger than that is sent alone.
    public var memoryLimit: Int

    /// Whether to ask the server for its holes, which are then neither read nor take memory.
    public var usesExtents: Bool

    /// How to identify the server and this client, for `nbds` addresses.
    public var tls: TLS

    /// Whether an address may name local files, such as `tls-certificates=DIRECTORY`.
    public var allowsLocalFiles: Bool

    /// How long connecting may take, the handshake included.
    public var connectTimeout: Duration

    /// How long the server may keep all requests of a connection waiting, before the connection is given up.
    ///
    /// What counts are requests that were answered, not bytes. If others are, one request may wait for longer: the pager's
    /// `sourceTimeout` bounds that.
    public var responseTimeout: Duration

    /// The time before the second attempt to connect again; each further one waits twice as long.
    public var backOff: Duration

    /// The longest time between two attempts to connect.
    public var maximumBackOff: Duration

    /// Gets what happens to connections and requests, on the source's thread: it must not wait.
    public var report: (@Sendable (NBDReport) -> Void)?

    /// How a source works; the defaults suit a server in the same data centre.
    public init(
        connections: Int = 4,
        requestsPerConnection: Int = 64,
        coalescedBytes: Int = 256 << 10,
        memoryLimit: Int = 64 << 20,
        usesExtents: Bool = true,
        tls: TLS = TLS(),
        allowsLocalFiles: Bool = false,
        connectTimeout: Duration = .seconds(10),
        responseTimeout: Duration = .seconds(30),
        backOff: Duration = .milliseconds(10),
        maximumBackOff: Duration = .seconds(1),
        report: (@Sendable (NBDReport) -> Void)? = nil
    ) {
        self.connections = connections
        self.requestsPerConnection = requestsPerConnection
        self.coalescedBytes = coalescedBytes
        self.memoryLimit = memoryLimit
        self.usesExtents = usesExtents
        self.tls = tls
        self.allowsLocalFiles = allowsLocalFiles
        self.connectTimeout = connectTimeout
        self.responseTimeout = responseTimeout
        self.backOff = backOff
        self.maximumBackOff = maximumBackOff
        self.report = report
    }

    /// Who the two ends of an encrypted connection are.
    public struct TLS: Hashable, Sendable {
        /// A folder with `ca-cert.pem`, the authority that has to have signed the server's certificate, and with
        /// `client-cert.pem` and `client-key.pem` if the server asks for them.
        public var certificates: String?

        /// Whether the server must have a certificate of the authority, for the name in the address.
        ///
        /// Without it anybody between client and server can be the server. A server on a Unix socket has no name, and libnbd
        /// then verifies nothing: `nbds+unix` addresses need pre-shared keys, or this turned off.
        public var verifiesServer: Bool

        /// A file with pre-shared keys, in place of certificates.
        public var preSharedKeys: String?

        /// The name under which this client's key is in the file.
        public var username: String?

        /// Who the two ends are.
        ///
        /// An `nbds` address needs certificates or keys. The authorities that the system trusts do not count: several
        /// versions of libnbd take any certificate if they are to use those.
        public init(
            certificates: String? = nil, verifiesServer: Bool = true, preSharedKeys: String? = nil,
            username: String? = nil
        ) {
            self.certificates = certificates
            self.verifiesServer = verifiesServer
            self.preSharedKeys = preSharedKeys
            self.username = username
        }
    }

    func check() throws(NBDError) {
        guard connections > 0, requestsPerConnection > 0, coalescedBytes > 0, memoryLimit > 0 else {
            throw NBDError(.configuration, message: "connections, requests, and bytes must be more than zero")
        }
        guard connections <= Self.maximumConnections else {
            throw NBDError(
                .configuration, message: "at most \(Self.maximumConnections) connections, and not \(connections)")
        }
        guard connectTimeout > .zero, responseTimeout > .zero else {
            throw NBDError(.configuration, message: "the time to connect, or to reply, must be more than zero")
        }
        guard backOff > .zero, maximumBackOff >= backOff else {
            throw NBDError(.configuration, message: "a back-off is more than zero, and not more than the longest one")
        }
    }
}
#endif
