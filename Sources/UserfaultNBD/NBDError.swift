#if NBD
public import SystemPackage

/// Why a server could not be asked, or what it refused.
public struct NBDError: Error, Hashable, Sendable {
    /// What was asked.
    public enum Operation: Hashable, Sendable {
        /// A configuration that contradicts itself.
        case configuration
        /// Making what a source needs on this machine.
        case prepare
        /// Reaching the server, and agreeing with it.
        case connect
        /// A connection that was made: it is gone.
        case connection
        /// Reading.
        case read
        /// Asking for holes.
        case extents
    }

    /// What was asked.
    public let operation: Operation

    /// What the server, the kernel or libnbd answered, if that was a number.
    public let errno: Errno?

    /// What libnbd says about it.
    public let message: String

    init(_ operation: Operation, errno: Errno? = nil, message: String) {
        self.operation = operation
        self.errno = errno
        self.message = message
    }
}

extension NBDError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        // libnbd mostly says it already.
        guard let errno, !message.contains("\(errno)") else { return message }
        return "\(message) (\(errno))"
    }
}

/// What happened to connections and requests.
public enum NBDReport: Hashable, Sendable {
    /// A connection is there, by its number.
    case connected(Int)
    /// A connection is gone. What was outstanding on it has failed, and is asked for again as the region's policy says.
    case disconnected(Int, NBDError)
    /// A connection could not be made. It is tried again; the same failure is reported once.
    case notConnected(Int, NBDError)
    /// The server could not read a part of the export.
    case readFailed(Range<Int>, NBDError)
    /// The server could not tell where its holes are: this part is read whole.
    case extentsFailed(Range<Int>, NBDError)
}

/// What a source did so far.
public struct NBDStatistics: Hashable, Sendable {
    /// Requests for pages that were taken.
    public var requests = 0
    /// Requests for pages that failed, for whatever reason.
    public var failures = 0
    /// Requests that were sent to read.
    public var reads = 0
    /// Bytes that were read.
    public var bytesRead = 0
    /// Bytes that were not read, because the server has a hole there.
    public var bytesInHoles = 0
    /// Connections that were made.
    public var connections = 0
    /// The most memory that content took while it was on its way, in bytes.
    public var peakMemory = 0
}

/// What a server offers.
public struct NBDExport: Hashable, Sendable {
    /// The export's size, in bytes.
    public let byteCount: Int
    /// Reads begin and end at multiples of this, in bytes, and so does the export.
    public let minimumBlock: Int
    /// Reads are best at multiples of this, in bytes.
    public let preferredBlock: Int
    /// The most bytes of one read.
    public let maximumBlock: Int
    /// Whether several connections may be used together.
    public let allowsManyConnections: Bool
    /// Whether the server tells where its holes are.
    public let hasExtents: Bool

    /// The most bytes of an export: sums of an offset and a length stay below the largest number.
    static var mostBytes: Int64 { 1 << 62 }

    /// Whether a range can be read as it is, by one command.
    func takes(_ range: Range<Int>) -> Bool {
        range.upperBound <= byteCount && range.count <= maximumBlock && range.lowerBound % minimumBlock == 0
            && range.upperBound % minimumBlock == 0
    }
}
#endif
