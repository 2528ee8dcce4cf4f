internal import Synchronization
internal import UserfaultFD

/// An image as a cache knows it.
struct CachedImage: Sendable {
    let number: Int
    let chunkBytes: Int
    /// Its length in whole pages, in bytes.
    let byteCount: Int
    private let bytes: [UInt8]

    init(_ number: Int, _ identity: ImageIdentity, chunkBytes: Int) {
        self.number = number
        self.chunkBytes = chunkBytes
        byteCount = PageSize.base.roundUp(identity.byteCount)
        bytes = identity.bytes
    }

    func key(_ index: Int) -> ChunkKey { ChunkKey(image: number, index: index) }

    func label(_ index: Int) -> ChunkLabel { ChunkLabel(image: bytes, index: index, chunkBytes: chunkBytes) }

    /// What a chunk has of the image.
    func range(_ index: Int) -> Range<Int> {
        min(index * chunkBytes, byteCount)..<min((index + 1) * chunkBytes, byteCount)
    }

    /// The parts of a range, chunk by chunk.
    func parts(of range: Range<Int>) -> [Range<Int>] {
        (range.lowerBound / chunkBytes...(range.upperBound - 1) / chunkBytes).map {
            // The last chunk may end after all offsets that there are.
            let (end, isBeyond) = ($0 * chunkBytes).addingReportingOverflow(chunkBytes)
            return range.clamped(to: $0 * chunkBytes..<(isBeyond ? .max : end))
        }
    }
}

/// What became of a chunk that was loaded.
enum LoadOutcome {
    case data
    case zeros
    case failed
}

/// A chunk that is on its way to a place in memory, which it has pinned.
final class ChunkLoad: Sendable {
    struct State {
        /// What gets its part of the chunk when it is there.
        var requests: [ChunkRequest] = []
        /// Threads that wait for it.
        var sleepers = 0
        var outcome: LoadOutcome?
    }

    let key: ChunkKey
    let label: ChunkLabel
    let place: Int
    /// The part of the image that is loaded: the last chunk of an image is shorter.
    let range: Range<Int>
    let isDemand: Bool
    let state: Mutex<State>
    private let ended = FutexWord()

    init(_ image: CachedImage, _ index: Int, place: Int, for request: ChunkRequest?) {
        key = image.key(index)
        label = image.label(index)
        range = image.range(index)
        self.place = place
        isDemand = request?.isDemand ?? true
        state = Mutex(State(requests: request.map { [$0] } ?? []))
    }

    /// Wakes the threads that wait.
    func signal() { ended.signal() }

    /// Waits for the end.
    func wait() -> LoadOutcome {
        while true {
            let seen = ended.changes
            if let outcome = state.withLock({ $0.outcome }) { return outcome }
            ended.wait(while: seen, until: .never)
        }
    }
}

/// A request for pages of one chunk, until it is settled.
final class ChunkRequest: RequestedWork {
    typealias Source = @Sendable (consuming PageRequest) -> Void

    let image: CachedImage
    let index: Int
    let range: Range<Int>
    let isDemand: Bool
    /// Nobody waits for it: only the chunk is to be kept.
    let isForKeeping: Bool
    private let original: PageRequest
    private let source: Source

    /// - Parameter source: Where the pages come from if they cannot come from a chunk.
    init(
        _ request: consuming PageRequest, of image: CachedImage, isForKeeping: Bool = false, _ source: @escaping Source
    ) {
        self.image = image
        index = request.offset / image.chunkBytes
        range = request.offset..<request.offset + request.byteCount
        isDemand = request.priority == .demand
        self.isForKeeping = isForKeeping
        original = request
        self.source = source
    }

    /// A request for the same chunk, of which nobody takes the pages.
    var forKeeping: ChunkRequest {
        let work = AnsweredOnce(isCancelled: { false }) { _ in }
        return ChunkRequest(
            PageRequest(work, offset: range.lowerBound, byteCount: range.count, priority: .ahead), of: image,
            isForKeeping: true, source)
    }

    var isCancelled: Bool { original.isCancelled }

    func settle(_ reply: PageReply?) { original.work.settle(reply) }

    /// Asks the source for the pages themselves; they stay there for their chunk, which is loaded later.
    func passOn() { hand(range, isCancelled: { self.isCancelled }, { self.settle($0?.staying) }) }

    /// Asks its source.
    func hand(
        _ range: Range<Int>, isCancelled: @escaping @Sendable () -> Bool,
        _ answer: @escaping @Sendable (PageReply?) -> Void
    ) {
        let work = AnsweredOnce(isCancelled: isCancelled, answer)
        source(PageRequest(work, offset: range.lowerBound, byteCount: range.count, priority: original.priority))
    }
}
