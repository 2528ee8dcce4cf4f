internal import UserfaultFD

/// A source whose pages replace those of another: a diff over a base.
///
/// Where the upper source has data is said once. Overlays of overlays make chains.
public struct OverlaySource<Upper: PageSource & ~Copyable, Base: PageSource & ~Copyable>: ~Copyable, PageSource {
    /// Why a page cannot be loaded.
    public enum Failure: Error {
        /// The upper source failed.
        case upper(Upper.Failure)
        /// The base failed.
        case base(Base.Failure)
    }

    private let upper: Upper
    private let base: Base
    private let extents: ExtentList

    /// Lays a source over another.
    ///
    /// - Parameters:
    ///   - upper: Answers for its extents.
    ///   - extents: Where that has data, in bytes: whole pages. They may overlap, in any order.
    ///   - base: Answers for everything else.
    /// - Throws: ``PagerError/configuration(_:)`` if extents are not whole pages, if one of the sources fills the region's
    ///   file, or if one of them completes requests later and the other waits when it is asked.
    public init(_ upper: consuming Upper, extents: [Range<Int>], over base: consuming Base) throws(PagerError) {
        guard let extents = ExtentList(extents) else { throw .configuration("extents are whole pages") }
        guard !upper.fillsFile, !base.fillsFile else {
            throw .configuration("shared pages are in one file, and have no parts")
        }
        let isMixed = upper.handling != base.handling
        guard !isMixed || !upper.isSlow && !base.isSlow else {
            throw .configuration(
                "a source that waits cannot be asked beside one that completes requests later: read it into memory, "
                    + "or say that it is not slow")
        }
        self.extents = extents
        self.upper = upper
        self.base = base
    }

    /// Whether one of the two may wait, see ``PageSource/isSlow``.
    public var isSlow: Bool { upper.isSlow || base.isSlow }

    /// ``PageHandling/asynchronous`` if one of the two is.
    public var handling: PageHandling {
        upper.handling == .asynchronous || base.handling == .asynchronous ? .asynchronous : .immediate
    }

    /// Whether requests may be handed over while one is completed, see ``PageSource/isReentrant``.
    public var isReentrant: Bool {
        (upper.handling == .immediate || upper.isReentrant) && (base.handling == .immediate || base.isReentrant)
    }

    /// Where the upper source replaces something, or the base has data, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? {
        guard let covered = extents.first(from: offset) else { return base.extent(from: offset) }
        guard let below = base.extent(from: offset), below.lowerBound < covered.upperBound else { return covered }
        // One extent at a time: what follows is asked for when it is wanted.
        let first = below.lowerBound < covered.lowerBound ? below : covered
        let other = below.lowerBound < covered.lowerBound ? covered : below
        return other.lowerBound <= first.upperBound ? first.lowerBound..<max(first.upperBound, other.upperBound) : first
    }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        var run = extents.run(at: offset)
        if run.count >= pages.freeCapacity { return try ask(run.isCovered, offset, &pages) }
        // Several parts: all of it is copied into the room, one after another.
        var at = offset
        while pages.freeCapacity > 0 {
            let before = pages.byteCount
            let (reply, isContent): (PageReply, Bool)
            do throws(Failure) {
                (reply, isContent) = try pages.appendContent(of: run.count) { (room) throws(Failure) in
                    try ask(run.isCovered, at, &room)
                }
            } catch {
                guard pages.byteCount > 0 else { throw error }
                break
            }
            at += pages.byteCount - before
            guard isContent, pages.byteCount - before == run.count || pages.freeCapacity == 0 else {
                // What cannot be copied now is not lost for that: the engine tries, and follows the region's policy.
                guard pages.byteCount > 0 else { return reply.limited(to: run.count) }
                break
            }
            run = extents.run(at: at)
        }
        return .data
    }

    private func ask(
        _ isCovered: Bool, _ offset: Int, _ room: inout OutputRawSpan
    ) throws(Failure) -> PageReply {
        if isCovered {
            do throws(Upper.Failure) { return try upper.load(offset: offset, into: &room) } catch {
                throw .upper(error)
            }
        }
        do throws(Base.Failure) { return try base.load(offset: offset, into: &room) } catch { throw .base(error) }
    }

    /// Hands a request on, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) {
        let run = extents.run(at: request.offset)
        if run.count >= request.byteCount { return hand(run.isCovered, request) }
        let (start, end) = (request.offset, request.offset + request.byteCount)
        var parts: [(isCovered: Bool, range: Range<Int>)] = []
        var at = start
        while at < end {
            let run = extents.run(at: at)
            let next = min(end, run.count > end - at ? end : at + run.count)
            parts.append((run.isCovered, at..<next))
            at = next
        }
        let assembly = Assembly(request, parts: parts.count)
        for part in parts { hand(part.isCovered, assembly.request(for: part.range)) }
    }

    private func hand(_ isCovered: Bool, _ request: consuming PageRequest) {
        if isCovered { upper.handOrLoad(request) } else { base.handOrLoad(request) }
    }
}

/// Ranges of bytes that a source has, in order.
struct ExtentList: Sendable {
    private let extents: [Range<Int>]

    /// - Returns: `nil` if they are not whole pages.
    init?(_ ranges: [Range<Int>]) {
        let page = PageSize.base.bytes
        guard ranges.allSatisfy({ $0.lowerBound >= 0 && $0.lowerBound % page == 0 && $0.upperBound % page == 0 }) else {
            return nil
        }
        var merged: [Range<Int>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
            if let last = merged.last, last.upperBound >= range.lowerBound {
                merged[merged.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                merged.append(range)
            }
        }
        extents = merged
    }

    /// The first extent that ends after an offset, from there on.
    func first(from offset: Int) -> Range<Int>? {
        let index = firstIndex(endingAfter: offset)
        return index < extents.count ? max(extents[index].lowerBound, offset)..<extents[index].upperBound : nil
    }

    private func firstIndex(endingAfter offset: Int) -> Int {
        var low = 0
        var high = extents.count
        while low < high {
            let middle = (low + high) / 2
            if extents[middle].upperBound > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Whether an offset is in an extent, and how many bytes from there on are of the same kind.
    func run(at offset: Int) -> (isCovered: Bool, count: Int) {
        let index = firstIndex(endingAfter: offset)
        guard index < extents.count else { return (false, .max) }
        let next = extents[index]
        return next.lowerBound <= offset
            ? (true, next.upperBound - offset) : (false, next.lowerBound - offset)
    }
}
