public import UserfaultFD

/// A part of a client's memory, and where its content is in the source.
public struct HandedRegion: Hashable, Sendable {
    /// The addresses in the client's process.
    public let range: AddressRange

    /// Where the content begins in the source, in bytes.
    public let offset: Int

    /// The size of the region's pages.
    public let pageSize: PageSize

    /// Where the addresses of a process end on all machines: there is room for no regions whose sizes have a sum that is too large.
    private static var addressLimit: UInt { 1 << 56 }

    /// A region as a peer describes it: numbers that nobody has checked yet.
    ///
    /// - Throws: ``HandoffError/malformed(_:)`` if the region is empty, ends outside the address space or the source, or
    ///   is not made of whole pages.
    public init(
        address: UInt64, byteCount: UInt64, offset: UInt64, pageBytes: UInt64
    ) throws(HandoffError) {
        let place = "the region at 0x\(String(address, radix: 16))"
        guard let bytes = Int(exactly: pageBytes), let pageSize = PageSize(bytes: bytes) else {
            throw .malformed("\(place) has pages of \(pageBytes) bytes, which no memory has")
        }
        guard byteCount > 0, let count = Int(exactly: byteCount), let start = UInt(exactly: address),
            !start.addingReportingOverflow(UInt(count)).overflow
        else { throw .malformed("\(place) has \(byteCount) bytes, which is nothing or too much") }
        guard let from = Int(exactly: offset), !from.addingReportingOverflow(count).overflow else {
            throw .malformed("\(place) has the offset \(offset), which is too large")
        }
        guard start % UInt(bytes) == 0, count % bytes == 0, from % bytes == 0 else {
            throw .malformed("\(place) is not made of whole pages of \(bytes) bytes")
        }
        do throws(UserfaultError) {
            range = try AddressRange(checkingStart: start, count: count)
        } catch {
            throw .malformed("\(place) is not in the address space")
        }
        guard range.end <= Self.addressLimit else { throw .malformed("\(place) is not in the address space") }
        self.offset = from
        self.pageSize = pageSize
    }

    /// Where the content ends in the source, in bytes.
    public var end: Int { offset + range.count }

    /// The last page of the region.
    var lastPage: AddressRange { range.part(at: range.count - pageSize.bytes, count: pageSize.bytes) }

    /// Refuses regions that overlap in the client's memory, and a list without any.
    static func check(_ regions: [HandedRegion], limits: HandoffLimits) throws(HandoffError) {
        guard !regions.isEmpty else { throw .malformed("there is no region") }
        guard regions.count <= limits.regions else { throw .tooManyRegions(limit: limits.regions) }
        let sorted = regions.sorted { $0.range.start < $1.range.start }
        for (former, latter) in zip(sorted, sorted.dropFirst()) where former.range.overlaps(latter.range) {
            throw .malformed("\(former.range) and \(latter.range) overlap")
        }
    }

    /// Refuses regions that have the same bytes of the source: a small file would stand for any amount of memory.
    static func checkSource(of regions: [HandedRegion]) throws(HandoffError) {
        let sorted = regions.sorted { $0.offset < $1.offset }
        for (former, latter) in zip(sorted, sorted.dropFirst()) where former.end > latter.offset {
            throw .malformed("\(former.range) and \(latter.range) have the same bytes of the source")
        }
    }
}
