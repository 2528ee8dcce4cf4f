internal import UserfaultFD

/// A source whose pages are kept in a ``ChunkCache``.
///
/// It takes sources of every kind. A page that is not in the cache is loaded with its whole chunk, once for all that want
/// it. If a chunk cannot be loaded, the pages that are wanted are asked for by themselves: a bad page costs no other.
///
/// It may be shared by pagers, like its cache.
public final class CachedSource<Base: PageSource & ~Copyable>: PageSource {
    /// Why a page cannot be loaded: as the source's.
    public typealias Failure = Base.Failure

    private let base: Base
    private let cache: ChunkCache
    private let image: CachedImage

    /// Keeps the pages of a source in a cache.
    ///
    /// - Parameters:
    ///   - base: The source.
    ///   - identity: What its content is. Whoever uses the same one gets the same pages.
    ///   - cache: Where they are kept.
    /// - Throws: ``PagerError/configuration(_:)`` if the source fills the region's file.
    public init(
        _ base: consuming Base, of identity: ImageIdentity, in cache: ChunkCache
    ) throws(PagerError) {
        guard !base.fillsFile else { throw .configuration("shared pages are in one file, and need no cache") }
        self.base = base
        self.cache = cache
        image = cache.image(identity)
    }

    /// Whether the source may wait, or the cache for its disk, see ``PageSource/isSlow``.
    public var isSlow: Bool { handling == .immediate && (base.isSlow || cache.disk != nil) }

    /// As the source's.
    public var handling: PageHandling { base.handling }

    /// Where the source has data, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { base.extent(from: offset) }

    // MARK: Requests

    /// Takes a request, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) {
        let range = request.offset..<request.offset + request.byteCount
        let parts = image.parts(of: range)
        if parts.count == 1 { return serve(request) }
        let assembly = Assembly(request, parts: parts.count)
        for part in parts { serve(assembly.request(for: part)) }
    }

    private func serve(_ request: consuming PageRequest) {
        guard request.offset < image.byteCount else { return request.complete(.zero) }
        // Chunks that are only to be kept do not hold the source: it goes with its last pager.
        cache.serve(ChunkRequest(request, of: image) { [weak self] in self?.base.hand($0) })
    }

    // MARK: Calls

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        var answer = Answer(offset: offset)
        for part in image.parts(of: offset..<offset + pages.freeCapacity) {
            let before = answer.byteCount
            if !append(part, to: &answer, &pages) {
                cache.counters.countPassedOn()
                guard before > 0 else {
                    // Not copied here: what cannot be is for the engine to try, and for the region's policy. Nor taken away:
                    // the chunk is loaded again.
                    return try pages.withRoom(part.count) { (room) throws(Failure) in
                        try base.load(offset: part.lowerBound, into: &room).limited(to: part.count).staying
                    }
                }
                let isContent = try? answer.append(to: &pages, atMost: part.count) { (room) throws(Failure) in
                    try base.load(offset: part.lowerBound, into: &room)
                }
                guard isContent == true else { break }
            }
            guard answer.byteCount - before == part.count else { break }
        }
        return pages.byteCount > 0 ? .data : .zeros(count: answer.zeros)
    }

    /// What was put together so far.
    private struct Answer {
        let offset: Int
        /// Zeros in front of all content, which have not been appended.
        var zeros = 0
        /// All bytes, those zeros included.
        var byteCount = 0

        mutating func append(zeros count: Int, to pages: inout OutputRawSpan) {
            byteCount += count
            if pages.byteCount == 0 {
                zeros += count
            } else {
                unsafe pages.append(repeating: 0, count: count, as: UInt8.self)
            }
        }

        /// Appends what a reply says of a room.
        mutating func append<Failure: Error>(
            to pages: inout OutputRawSpan, atMost count: Int,
            _ body: (inout OutputRawSpan) throws(Failure) -> PageReply
        ) throws(Failure) -> Bool {
            if pages.byteCount == 0 { unsafe pages.append(repeating: 0, count: zeros, as: UInt8.self) }
            let before = pages.byteCount
            defer { byteCount += pages.byteCount - before }
            return try pages.appendContent(of: count, body).isContent
        }
    }

    /// - Returns: `false` if the cache cannot have the chunk: the pages are then the source's.
    private func append(_ part: Range<Int>, to answer: inout Answer, _ pages: inout OutputRawSpan) -> Bool {
        guard part.lowerBound < image.byteCount else {
            answer.append(zeros: part.count, to: &pages)
            return true
        }
        let index = part.lowerBound / image.chunkBytes
        switch cache.find(image, index, for: nil) {
        case .data(let place):
            append(part, place, to: &answer, &pages)
            cache.unpin(place)
            return true
        case .zeros:
            answer.append(zeros: part.count, to: &pages)
            return true
        case .underway(let load):
            let outcome = load.wait()
            let isThere = append(part, outcome, load.place, to: &answer, &pages)
            if outcome == .data { cache.unpin(load.place) }
            return isThere
        case .new(let load):
            let kept = cache.readFromDisk(load)
            let outcome = kept ?? fill(load)
            let isThere = append(part, outcome, load.place, to: &answer, &pages)
            cache.end(load, outcome, isOnDisk: kept != nil)
            return isThere
        case .noRoom, .parked:
            return false
        }
    }

    private func append(
        _ part: Range<Int>, _ outcome: LoadOutcome, _ place: Int, to answer: inout Answer, _ pages: inout OutputRawSpan
    ) -> Bool {
        switch outcome {
        case .data: append(part, place, to: &answer, &pages)
        case .zeros: answer.append(zeros: part.count, to: &pages)
        case .failed: return false
        }
        return true
    }

    private func append(_ part: Range<Int>, _ place: Int, to answer: inout Answer, _ pages: inout OutputRawSpan) {
        let content = unsafe cache.part(part, place)
        guard unsafe !content.isZeros else { return answer.append(zeros: part.count, to: &pages) }
        _ = answer.append(to: &pages, atMost: part.count) { (room) throws(Never) in
            unsafe room.withUnsafeMutableBytes { buffer, initialized in
                unsafe buffer.copyMemory(from: content)
                initialized = content.count
            }
            return .data
        }
    }

    /// Asks the source for a chunk.
    private func fill(_ load: ChunkLoad) -> LoadOutcome {
        let room = unsafe cache.sourceRoom(load)
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        _ = try? base.fill(&pages, from: load.range.lowerBound)
        return unsafe pages.finalize(for: room) == room.count ? cache.outcome(of: load) : .failed
    }
}
