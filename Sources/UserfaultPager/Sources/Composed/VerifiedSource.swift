internal import UserfaultFD

/// A source whose pages are compared with checksums: a page that does not match is a failure, never content.
///
/// It finds damage on the way and at the server, not the work of an attacker, who can make a page for any checksum.
public struct VerifiedSource<Base: PageSource & ~Copyable>: ~Copyable, PageSource {
    /// Why a page cannot be loaded.
    public enum Failure: Error {
        /// The source failed.
        case source(Base.Failure)
        /// The page at this offset, in bytes, is not the one whose checksum was recorded.
        case mismatch(at: Int)
        /// The source's memory for the page at this offset, in bytes, cannot be read now.
        case unreadable(at: Int)
    }

    private let base: Base
    private let checksums: PageChecksums
    private let report: @Sendable (Int) -> Void

    /// Compares the pages of a source.
    ///
    /// - Parameters:
    ///   - base: The source.
    ///   - checksums: What its pages should be. Pages after the last checksum must be zeros.
    ///   - report: Is told where a page is that differs, in bytes, on whatever thread finds it: it must not wait. The failure
    ///     of a request, see ``PageSource/hand(_:)``, does not say why.
    /// - Throws: ``PagerError/configuration(_:)`` if the source fills the region's file.
    public init(
        _ base: consuming Base, _ checksums: PageChecksums, report: @escaping @Sendable (Int) -> Void = { _ in }
    ) throws(PagerError) {
        guard !base.fillsFile else { throw .configuration("the pages are in the file before they can be verified") }
        self.base = base
        self.checksums = checksums
        self.report = report
    }

    /// As the source's.
    public var isSlow: Bool { base.isSlow }
    /// As the source's.
    public var handling: PageHandling { base.handling }
    /// Whether requests may be handed over while one is completed, see ``PageSource/isReentrant``.
    public var isReentrant: Bool { base.isReentrant }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        let reply: PageReply
        do throws(Base.Failure) {
            reply = try base.load(offset: offset, into: &pages)
        } catch {
            throw .source(error)
        }
        switch checksums.verify(reply, at: offset, in: &pages) {
        case .good(let verified): return verified
        case .wrong:
            report(offset)
            throw .mismatch(at: offset)
        case .unreadable: throw .unreadable(at: offset)
        }
    }

    /// As the source's.
    public var isOftenReady: Bool { base.isOftenReady }

    /// Answers without waiting, see ``PageSource/loadIfReady(offset:into:)``.
    public func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        // What differs is told by who may wait.
        guard let reply = base.loadIfReady(offset: offset, into: &pages),
            case .good(let verified) = checksums.verify(reply, at: offset, in: &pages)
        else { return nil }
        return verified
    }

    /// Where the source has data, or pages that should not be zeros, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? {
        let extent = base.extent(from: offset)
        guard let wrong = checksums.firstData(in: offset..<max(offset, extent?.lowerBound ?? .max)) else {
            return extent
        }
        return wrong..<(extent?.upperBound ?? .max)
    }

    /// Hands a request on, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) {
        let (offset, count) = (request.offset, request.byteCount)
        base.hand(
            request.handedOn(offset: offset, byteCount: count) { [checksums, report] reply, settle in
                guard let reply else { return settle(nil) }
                let room = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
                defer { unsafe room.deallocate() }
                var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
                let verdict = checksums.verify(reply, at: offset, in: &pages)
                let bytes = unsafe pages.finalize(for: room)
                guard case .good(let verified) = verdict else {
                    if case .wrong = verdict { report(offset) }
                    return settle(nil)
                }
                settle(verified == .data ? .memory(at: UInt(bitPattern: room.baseAddress), count: bytes) : verified)
            })
    }
}

extension VerifiedSource.Failure: CustomStringConvertible where Base: ~Copyable {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .source(let failure): "\(failure)"
        case .mismatch(let offset): "the page at byte \(offset) is not the one of its checksum"
        case .unreadable(let offset): "the memory of the page at byte \(offset) cannot be read now"
        }
    }
}

/// The checksum of each page of an image: CRC-32C, four bytes for each page of the base size.
///
/// As a file: the checksums as 32-bit words, little-endian, in the order of the pages.
public struct PageChecksums: Hashable, Sendable {
    private var words: [UInt32]

    private static var pageBytes: Int { PageSize.base.bytes }
    private static let ofZeros = unsafe CRC32C.checksum(
        of: UnsafeRawBufferPointer(UnsafeMutableRawBufferPointer(rebasing: zeroPage[...])))

    @safe private nonisolated(unsafe) static let zeroPage: UnsafeMutableRawBufferPointer = {
        let page = UnsafeMutableRawBufferPointer.allocate(byteCount: pageBytes, alignment: 64)
        unsafe page.initializeMemory(as: UInt8.self, repeating: 0)
        return unsafe page
    }()

    /// No pages; add content with ``append(_:)-(RawSpan)``.
    public init() {
        words = []
    }

    /// Reads a file's bytes.
    ///
    /// - Returns: `nil` if they are not whole words.
    public init?(bytes: [UInt8]) {
        guard bytes.count % 4 == 0 else { return nil }
        words = stride(from: 0, to: bytes.count, by: 4).map { at in
            (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32($1 * 8) }
        }
    }

    /// The bytes of a file.
    public var bytes: [UInt8] {
        words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32($0 * 8)) } }
    }

    /// How many pages have one.
    public var count: Int { words.count }

    /// Adds the pages that follow; zeros complete the last one.
    public mutating func append(_ content: borrowing RawSpan) {
        unsafe content.withUnsafeBytes { content in
            for start in stride(from: 0, to: content.count, by: Self.pageBytes) {
                let page = unsafe UnsafeRawBufferPointer(
                    rebasing: content[start..<min(start + Self.pageBytes, content.count)])
                let rest = unsafe UnsafeRawBufferPointer(rebasing: Self.zeroPage[..<(Self.pageBytes - page.count)])
                unsafe words.append(CRC32C.checksum(of: rest, after: CRC32C.checksum(of: page)))
            }
        }
    }

    /// Adds pages that follow and are zeros.
    ///
    /// - Parameter byteCount: Their length, in bytes; a last page may be a part of one.
    public mutating func appendZeros(_ byteCount: Int) {
        words += repeatElement(Self.ofZeros, count: PageSize.base.pages(in: PageSize.base.roundUp(byteCount)))
    }

    /// Adds pages that follow, by their checksums.
    public mutating func append(_ following: PageChecksums) { words += following.words }

    /// What became of a reply that was compared.
    enum Verdict {
        /// What to answer in its place.
        case good(PageReply)
        case wrong
        case unreadable
    }

    /// Compares what a source has answered, and appends what is right of it.
    ///
    /// - Parameter pages: The room that the source was asked for.
    func verify(_ reply: PageReply, at offset: Int, in pages: inout OutputRawSpan) -> Verdict {
        if reply == .poison { return .good(reply) }
        if case .zeros(let count) = reply, count >= 0, areZeros(offset, min(count, pages.capacity)) {
            return .good(reply)
        }
        // Copied first: what is compared must be what is shown, and memory that was cut is no reason to die.
        guard pages.takeContent(of: reply) else { return .unreadable }
        let good = unsafe pages.withUnsafeMutableBytes { buffer, initialized in
            unsafe matchingPrefix(of: UnsafeRawBufferPointer(rebasing: buffer[..<initialized]), at: offset)
        }
        pages.removeLast(pages.byteCount - good)
        return good > 0 ? .good(.data) : .wrong
    }

    /// How many bytes from the first one on are pages that match.
    private func matchingPrefix(of content: UnsafeRawBufferPointer, at offset: Int) -> Int {
        var good = 0
        while good + Self.pageBytes <= content.count {
            let page = unsafe UnsafeRawBufferPointer(rebasing: content[good..<good + Self.pageBytes])
            guard unsafe CRC32C.checksum(of: page) == expected((offset + good) / Self.pageBytes) else { break }
            good += Self.pageBytes
        }
        return good
    }

    /// Whether pages should all be zeros.
    func areZeros(_ offset: Int, _ count: Int) -> Bool {
        (offset / Self.pageBytes..<(offset + count) / Self.pageBytes).allSatisfy { expected($0) == Self.ofZeros }
    }

    /// Where the first page is in a range that should not be zeros.
    func firstData(in range: Range<Int>) -> Int? {
        let first = range.lowerBound / Self.pageBytes
        let end = min(words.count, (range.upperBound - 1) / Self.pageBytes + 1)
        guard !range.isEmpty, first < end else { return nil }
        return (first..<end).first { expected($0) != Self.ofZeros }.map { max(range.lowerBound, $0 * Self.pageBytes) }
    }

    private func expected(_ page: Int) -> UInt32 { page < words.count ? words[page] : Self.ofZeros }
}
