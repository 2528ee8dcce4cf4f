internal import CUserfaultFD
internal import SystemPackage

extension UserfaultFD {
    /// What the kernel shows about a descriptor in `/proc/self/fdinfo`.
    public struct Status: Hashable, Sendable {
        /// The page faults that were not read yet.
        public let pending: Int
        /// All threads that wait for this descriptor: the pending ones, and those whose fault was read.
        public let total: Int
        /// The features in force.
        public let features: Features
        /// The ioctls that the kernel knows, for the descriptor and for ranges.
        public let ioctls: Ioctls
        /// Whether the features were negotiated.
        public let isNegotiated: Bool
    }

    /// What the kernel shows about this descriptor: who waits, and what is in force.
    ///
    /// A thread is counted from the moment its fault is queued until it goes on. Reads `/proc/self/fdinfo`, which
    /// allocates: not for the fault path.
    ///
    /// - Throws: ``UserfaultError`` with `ENOENT` if `/proc` is not mounted; `EMFILE`.
    public func status() throws(UserfaultError) -> Status {
        try Status(of: descriptor.rawValue)
    }
}

extension UserfaultFD.Status {
    /// Reads the state of any descriptor of this process, which must be a userfaultfd.
    init(of rawDescriptor: CInt) throws(UserfaultError) {
        let text = try ProcFile.read("/proc/self/fdinfo/\(rawDescriptor)", for: .status)
        guard let status = Self(fdinfo: text) else {
            throw UserfaultError(.status, errno: .invalidArgument)
        }
        self = status
    }

    /// Parses the text of `/proc/PID/fdinfo/FD`; `nil` if it is not that of a userfaultfd.
    ///
    /// - Parameter text: The whole file.
    public init?(fdinfo text: String) {
        guard let pending = ProcFile.value(of: "pending:", in: text).flatMap({ Int($0) }),
            let total = ProcFile.value(of: "total:", in: text).flatMap({ Int($0) }),
            let api = ProcFile.value(of: "API:", in: text)
        else { return nil }
        let words = api.split(separator: ":", omittingEmptySubsequences: false).map { UInt64($0, radix: 16) }
        guard words.count == 3, words[0] == CUFFD_API_VERSION, let features = words[1], let ioctls = words[2]
        else { return nil }
        self.pending = pending
        self.total = total
        isNegotiated = features & CUFFD_FEATURE_INITIALIZED != 0
        self.features = UserfaultFD.Features(rawValue: features & ~CUFFD_FEATURE_INITIALIZED)
        self.ioctls = UserfaultFD.Ioctls(rawValue: ioctls)
    }
}
