public import UserfaultFD
internal import UserfaultPager

/// What a client of this library's own handoff sends: pure, bytes in and regions out.
///
/// All numbers are little-endian. The userfaultfd travels with the first byte, and after it a memory file if the flag says
/// so.
///
/// | at | bytes | |
/// | --- | --- | --- |
/// | 0 | 8 | `UFFDHAND` |
/// | 8 | 4 | the version: 1 |
/// | 12 | 4 | flags: 1, the descriptor handles kernel-mode faults; 2, a memory file follows the descriptor |
/// | 16 | 8 | the features that the descriptor was negotiated with, or 0 to have the server find out |
/// | 24 | 4 | how many regions follow |
/// | 28 | 4 | 0 |
/// | 32 | 32 each | the regions: address, bytes, offset in the source, bytes of a page |
///
/// The server sends a ``HandoffReply`` back. The service ends with the client's process.
public struct HandoffMessage: Sendable {
    /// The version that this library speaks.
    public static let version = 1

    /// What the client says beside its regions.
    public struct Flags: OptionSet, Hashable, Sendable {
        /// The bits of the message.
        public let rawValue: UInt32

        /// Flags as a message has them.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// The descriptor was opened for kernel-mode faults too.
        public static var kernelFaults: Flags { Flags(rawValue: 1) }
        /// The memory is a mapping of a memory file, which follows the userfaultfd.
        public static var memoryFile: Flags { Flags(rawValue: 2) }

        static var all: Flags { [.kernelFaults, .memoryFile] }
    }

    /// What a complete message says.
    public struct Content: Hashable, Sendable {
        /// What the client says beside its regions.
        public var flags: Flags
        /// What the descriptor was negotiated with; `nil` if the client does not say.
        public var features: UserfaultFD.Features?
        /// Where the memory is.
        public var regions: [HandedRegion]

        /// What a message is to say.
        public init(flags: Flags = [], features: UserfaultFD.Features? = nil, regions: [HandedRegion]) {
            self.flags = flags
            self.features = features
            self.regions = regions
        }

        /// The bytes of the message.
        public var bytes: [UInt8] {
            var writer = WordWriter(HandoffMessage.magic)
            writer.append(UInt32(HandoffMessage.version))
            writer.append(flags.rawValue)
            writer.append(features?.rawValue ?? 0)
            writer.append(UInt32(regions.count))
            writer.append(UInt32(0))
            for region in regions {
                writer.append(UInt64(region.range.start))
                writer.append(UInt64(region.range.count))
                writer.append(UInt64(region.offset))
                writer.append(UInt64(region.pageSize.bytes))
            }
            return writer.bytes
        }
    }

    private static let magic = Array("UFFDHAND".utf8)
    private static let headerBytes = 32
    private static let regionBytes = 32

    private var bytes: [UInt8] = []
    private let limits: HandoffLimits

    /// A message of which nothing has arrived.
    public init(limits: HandoffLimits = HandoffLimits()) {
        self.limits = limits
    }

    /// Whether nothing has arrived yet.
    public var isEmpty: Bool { bytes.isEmpty }

    /// Takes in what has arrived.
    ///
    /// - Parameter chunk: Any part of the message, in order.
    /// - Returns: What the message says once it is complete, else `nil`.
    /// - Throws: ``HandoffError/malformed(_:)``, ``HandoffError/version(_:)``, ``HandoffError/tooLong(limit:)``,
    ///   ``HandoffError/tooManyRegions(limit:)``: as early as the bytes tell.
    public mutating func consume(_ chunk: some Collection<UInt8>) throws(HandoffError) -> Content? {
        guard bytes.count + chunk.count <= limits.messageBytes else { throw .tooLong(limit: limits.messageBytes) }
        bytes += chunk
        guard bytes.starts(with: Self.magic.prefix(bytes.count)) else {
            throw .malformed("it does not begin with \(String(decoding: Self.magic, as: UTF8.self))")
        }
        guard bytes.count >= Self.headerBytes else { return nil }
        var reader = WordReader(bytes, from: Self.magic.count)
        let version = Int(reader.next(UInt32.self))
        guard version == Self.version else { throw .version(version) }
        let flags = Flags(rawValue: reader.next(UInt32.self))
        guard flags.isSubset(of: .all) else { throw .malformed("the flags \(flags.rawValue) are not known") }
        let features = UserfaultFD.Features(rawValue: reader.next(UInt64.self))
        let count = Int(reader.next(UInt32.self))
        guard reader.next(UInt32.self) == 0 else { throw .malformed("the word at byte 28 is not zero") }
        guard count <= limits.regions else { throw .tooManyRegions(limit: limits.regions) }
        let end = Self.headerBytes + count * Self.regionBytes
        guard bytes.count >= end else { return nil }
        guard bytes.count == end else { throw .malformed("something follows the regions") }
        var regions: [HandedRegion] = []
        for _ in 0..<count {
            regions.append(
                try HandedRegion(
                    address: reader.next(UInt64.self), byteCount: reader.next(UInt64.self),
                    offset: reader.next(UInt64.self), pageBytes: reader.next(UInt64.self)))
        }
        try HandedRegion.check(regions, limits: limits)
        return Content(flags: flags, features: features.isEmpty ? nil : features, regions: regions)
    }
}
