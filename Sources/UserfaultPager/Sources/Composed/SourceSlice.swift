internal import UserfaultFD

/// A part of another source: pages from an offset on, up to a length.
///
/// After its end there are zeros, whatever the other source has there.
public struct SourceSlice<Base: PageSource & ~Copyable>: ~Copyable, PageSource {
    private let base: Base
    private let start: Int
    private let count: Int

    /// A part of a source.
    ///
    /// - Parameters:
    ///   - base: The source.
    ///   - range: The part, in bytes: whole pages.
    /// - Throws: ``PagerError/configuration(_:)`` if it is not whole pages, or the source fills the region's file.
    public init(_ base: consuming Base, _ range: Range<Int>) throws(PagerError) {
        let page = PageSize.base.bytes
        guard range.lowerBound >= 0, range.lowerBound % page == 0, range.count % page == 0 else {
            throw .configuration("a part of a source is whole pages: \(range)")
        }
        guard !base.fillsFile else { throw .configuration("shared pages are in one file, and have no parts") }
        self.base = base
        start = range.lowerBound
        count = range.count
    }

    /// As the source's.
    public var isSlow: Bool { base.isSlow }
    /// As the source's.
    public var isOftenReady: Bool { base.isOftenReady }
    /// As the source's.
    public var handling: PageHandling { base.handling }
    /// Whether requests may be handed over while one is completed, see ``PageSource/isReentrant``.
    public var isReentrant: Bool { base.isReentrant }
    /// As the source's.
    public var isSignalSafe: Bool { base.isSignalSafe }
    /// As the source's.
    public var isInstant: Bool { base.isInstant }

    /// Where the source has data in the part, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? {
        guard offset < count, let extent = base.extent(from: start + offset), extent.lowerBound < start + count else {
            return nil
        }
        return extent.lowerBound - start..<min(extent.upperBound, start + count) - start
    }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Base.Failure) -> PageReply {
        guard offset < count else { return .zero }
        let wanted = count - offset
        guard wanted < pages.freeCapacity else { return try base.load(offset: start + offset, into: &pages) }
        // The source may answer for more than the room.
        let reply = try pages.withRoom(wanted) { (room) throws(Base.Failure) in
            try base.load(offset: start + offset, into: &room).limited(to: wanted)
        }
        return pages.appendZeros(after: reply, of: wanted)
    }

    /// Answers for a page without waiting, see ``PageSource/loadIfReady(offset:into:)``.
    public func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        guard offset < count else { return .zero }
        let wanted = count - offset
        guard wanted < pages.freeCapacity else { return base.loadIfReady(offset: start + offset, into: &pages) }
        let reply = pages.withRoom(wanted) { room in
            base.loadIfReady(offset: start + offset, into: &room)?.limited(to: wanted)
        }
        return reply.map { pages.appendZeros(after: $0, of: wanted) }
    }

    /// Hands a request on, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) {
        let offset = request.offset
        guard offset < count else { return request.complete(.zero) }
        let byteCount = request.byteCount
        let wanted = min(byteCount, count - offset)
        base.hand(
            request.handedOn(offset: start + offset, byteCount: wanted) { reply, answer in
                guard let reply = reply?.limited(to: wanted), wanted < byteCount else { return answer(reply) }
                unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 64) { room in
                    var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
                    let whole = pages.appendZeros(after: reply, of: wanted)
                    let appended = unsafe pages.finalize(for: room)
                    answer(
                        whole == .data ? unsafe .memory(at: UInt(bitPattern: room.baseAddress), count: appended) : whole
                    )
                }
            })
    }
}
