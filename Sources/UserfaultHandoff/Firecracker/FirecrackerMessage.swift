internal import UserfaultFD

/// What Firecracker sends when it loads a snapshot whose memory is served from outside: pure, bytes in and regions out.
///
/// A JSON array with an object for each region, without length or end: `base_host_virt_addr`, `size` and `offset` in
/// bytes, and the page size. Since v1.12 that is `page_size`; since v1.7 also `page_size_kib`, which is in bytes all the
/// same; before, pages have the base size. Other members are ignored.
public struct FirecrackerMessage: Sendable {
    private var frame: JSONFrame
    private let limits: HandoffLimits

    /// A message of which nothing has arrived.
    public init(limits: HandoffLimits = HandoffLimits()) {
        frame = JSONFrame(limit: limits.messageBytes)
        self.limits = limits
    }

    /// Whether nothing has arrived yet.
    public var isEmpty: Bool { frame.isEmpty }

    /// Takes in what has arrived.
    ///
    /// - Parameter bytes: Any part of the message, in order.
    /// - Returns: The regions once the message is complete, else `nil`. None has bytes of the source that another has.
    /// - Throws: ``HandoffError/malformed(_:)``, ``HandoffError/tooLong(limit:)``, ``HandoffError/tooManyRegions(limit:)``.
    public mutating func consume(_ bytes: some Collection<UInt8>) throws(HandoffError) -> [HandedRegion]? {
        guard try frame.consume(bytes) else { return nil }
        var reader = JSONReader(frame.bytes)
        var regions: [HandedRegion] = []
        let limits = limits
        try reader.array { (reader) throws(HandoffError) in
            guard regions.count < limits.regions else { throw .tooManyRegions(limit: limits.regions) }
            regions.append(try Self.region(&reader))
        }
        try reader.end()
        try HandedRegion.check(regions, limits: limits)
        try HandedRegion.checkSource(of: regions)
        return regions
    }

    private enum Member: String, CaseIterable {
        case address = "base_host_virt_addr"
        case size, offset
        case pageSize = "page_size"
        case oldPageSize = "page_size_kib"
    }

    private static func region(_ reader: inout JSONReader) throws(HandoffError) -> HandedRegion {
        var values: [Member: UInt64] = [:]
        try reader.object { (reader, name) throws(HandoffError) in
            guard let member = Member(rawValue: name) else { return try reader.skipValue() }
            guard values.updateValue(try reader.unsigned(), forKey: member) == nil else {
                throw .malformed("a region has \(name) twice")
            }
        }
        func required(_ member: Member) throws(HandoffError) -> UInt64 {
            guard let value = values[member] else { throw .malformed("a region has no \(member.rawValue)") }
            return value
        }
        return try HandedRegion(
            address: try required(.address), byteCount: try required(.size), offset: try required(.offset),
            pageBytes: values[.pageSize] ?? values[.oldPageSize] ?? UInt64(PageSize.base.bytes))
    }
}
