import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A page's content: a byte of the source's own, and the page's number.
private func word(_ kind: UInt8, _ offset: Int) -> UInt64 { UInt64(kind) << 56 | UInt64(offset / pageBytes) }

private struct Kind: PageSource {
    let kind: UInt8

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        for place in stride(from: offset, to: offset + pages.freeCapacity, by: pageBytes) {
            pages.append(repeating: word(kind, place), count: pageBytes / 8, as: UInt64.self)
        }
        return .data
    }
}

/// The same, as requests; keeps what it was asked for.
private final class LaterKind: AsynchronousPageSource {
    let kind: UInt8
    let asked = Mutex<[Range<Int>]>([])
    let failing: Range<Int>

    init(_ kind: UInt8, failing: Range<Int> = 0..<0) {
        self.kind = kind
        self.failing = failing
    }

    func load(_ request: consuming PageRequest) {
        let range = request.offset..<request.offset + request.byteCount
        asked.withLock { $0.append(range) }
        guard !range.overlaps(failing) else { return request.fail() }
        let words = (0..<range.count / 8).map { word(kind, range.lowerBound + $0 * 8) }
        request.complete(words.span.bytes)
    }
}

private func askIfReady(_ source: borrowing some PageSource & ~Copyable, at offset: Int)
    -> PageReply?
{
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: pageBytes, alignment: pageBytes)
    defer { room.deallocate() }
    var pages = OutputRawSpan(buffer: room, initializedCount: 0)
    let reply = source.loadIfReady(offset: offset, into: &pages)
    _ = pages.finalize(for: room)
    return reply
}

/// Where a source of holes has data, if its pages are compared with checksums.
private func extentsOfHoles(_ checksums: PageChecksums) throws -> [Range<Int>] {
    allExtents(of: try VerifiedSource(Holes(), checksums))
}

private func allExtents(of source: borrowing some PageSource & ~Copyable) -> [Range<Int>] {
    var found: [Range<Int>] = []
    var end = 0
    while let next = source.extent(from: end) {
        found.append(next)
        end = next.upperBound
    }
    return found
}

/// Where pages differ, as a source tells it.
private final class Places: Sendable {
    private let places = Mutex<[Int]>([])

    var all: [Int] { places.withLock { $0 } }
    var report: @Sendable (Int) -> Void { { place in self.places.withLock { $0.append(place) } } }
}

/// Has data from the second page to the third, and says that it is ready there.
private struct Holes: PageSource {
    var isOftenReady: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        guard offset >= pageBytes else { return .zero }
        return Kind(kind: 1).load(offset: offset, into: &pages)
    }

    func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        guard offset < 3 * pageBytes else { return nil }
        return load(offset: offset, into: &pages)
    }

    func extent(from offset: Int) -> Range<Int>? {
        offset < 3 * pageBytes ? max(offset, pageBytes)..<3 * pageBytes : nil
    }
}

/// Sources made of others.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ComposedSourceTests {
    private func words(_ bytes: [UInt8]) -> [UInt64] {
        stride(from: 0, to: bytes.count, by: pageBytes).map { at in
            bytes[at..<at + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    private var extents: [Range<Int>] { [2 * pageBytes..<3 * pageBytes, 5 * pageBytes..<9 * pageBytes] }

    /// Which source a page of an overlay comes from.
    private func expected(_ page: Int) -> UInt64 {
        word(extents.contains { $0.contains(page * pageBytes) } ? 2 : 1, page * pageBytes)
    }

    @Test func aSliceHasItsOwnOffsets() throws {
        let slice = try SourceSlice(Kind(kind: 1), 3 * pageBytes..<5 * pageBytes)
        #expect(words(try ask(slice, at: 0).bytes) == [word(1, 3 * pageBytes)])
        // Zeros behind its end, also where that is inside a huge page.
        #expect(words(try ask(slice, at: pageBytes, count: 4 * pageBytes).bytes) == [word(1, 4 * pageBytes), 0, 0, 0])
        #expect(try ask(slice, at: 2 * pageBytes).reply == .zero)
        #expect(error { () throws(PagerError) in _ = try SourceSlice(Kind(kind: 1), 1..<pageBytes) } != nil)
    }

    /// Content that stays where it is, and zeros, are followed by zeros too.
    @Test func whateverASliceAnswersIsFollowedByZeros() throws {
        let bytes = [UInt64](repeating: 7, count: pageBytes / 8)
        try bytes.withUnsafeBytes { content in
            let address = UInt(bitPattern: content.baseAddress)
            let base = ClosureSource<Never> { _, _ in .memory(at: address, count: pageBytes) }
            let answer = try ask(SourceSlice(base, 0..<pageBytes), at: 0, count: 2 * pageBytes)
            #expect(answer.reply == .data)
            #expect(words(answer.bytes) == [7, 0])
        }
        let zeros = ClosureSource<Never> { _, _ in .zeros(count: pageBytes) }
        #expect(try ask(SourceSlice(zeros, 0..<pageBytes), at: 0, count: 2 * pageBytes).reply == .zero)
        // Less than its part is no more than that.
        let little = ClosureSource<Never> { _, _ in .zeros(count: pageBytes) }
        let answer = try ask(SourceSlice(little, 0..<2 * pageBytes), at: 0, count: 4 * pageBytes)
        #expect(answer.reply == .zeros(count: pageBytes))
    }

    /// A source that answers nonsense fails.
    @Test func aReplyOfLessThanNothingIsNoContent() async {
        await #expect(processExitsWith: .success) {
            let base = ClosureSource<Never> { _, _ in .zeros(count: -pageBytes) }
            let overlay = try OverlaySource(base, extents: [0..<pageBytes], over: ZeroSource())
            #expect(try ask(overlay, at: 0, count: 2 * pageBytes).bytes.isEmpty)
            var checksums = PageChecksums()
            checksums.append([UInt8](repeating: 0, count: 4 * pageBytes).span.bytes)
            _ = try? ask(VerifiedSource(base, checksums), at: pageBytes)
        }
    }

    @Test func anOverlayTakesEachPageFromWhereItIs() throws {
        let overlay = try OverlaySource(Kind(kind: 2), extents: extents, over: Kind(kind: 1))
        #expect(words(try ask(overlay, at: 0, count: 12 * pageBytes).bytes) == (0..<12).map(expected))
        #expect(words(try ask(overlay, at: 6 * pageBytes, count: pageBytes).bytes) == [expected(6)])
    }

    /// Zeros and content that stays where it is are copied if more follows, and else answered as they are.
    @Test func anOverlayOfZerosKeepsThem() throws {
        let overlay = try OverlaySource(ZeroSource(), extents: [0..<2 * pageBytes], over: Kind(kind: 1))
        #expect(try ask(overlay, at: 0, count: 2 * pageBytes).reply == .zero)
        #expect(words(try ask(overlay, at: 0, count: 3 * pageBytes).bytes) == [0, 0, word(1, 2 * pageBytes)])
        let chain = try OverlaySource(Kind(kind: 3), extents: [pageBytes..<2 * pageBytes], over: overlay)
        #expect(
            words(try ask(chain, at: 0, count: 3 * pageBytes).bytes) == [0, word(3, pageBytes), word(1, 2 * pageBytes)])
    }

    /// Holes are where neither of two sources has anything, and outside a slice.
    @Test func holesAreKnown() throws {
        struct Sparse: PageSource {
            let data: [Range<Int>]

            func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply { .zero }
            func extent(from offset: Int) -> Range<Int>? {
                data.first { $0.upperBound > offset }.map { max($0.lowerBound, offset)..<$0.upperBound }
            }
        }
        func extents<Source: PageSource & ~Copyable>(of source: borrowing Source) -> [Range<Int>] {
            var found: [Range<Int>] = []
            while let next = source.extent(from: found.last?.upperBound ?? 0) { found.append(next) }
            return found
        }
        let base = Sparse(data: [0..<2 * pageBytes, 6 * pageBytes..<7 * pageBytes, 9 * pageBytes..<10 * pageBytes])
        let overlay = try OverlaySource(
            ZeroSource(), extents: [pageBytes..<3 * pageBytes, 8 * pageBytes..<9 * pageBytes], over: base)
        #expect(
            extents(of: overlay).flatMap { $0.map { $0 }.filter { $0 % pageBytes == 0 } }.map { $0 / pageBytes }
                == [0, 1, 2, 6, 8, 9])
        let slice = try SourceSlice(base, pageBytes..<7 * pageBytes)
        #expect(extents(of: slice) == [0..<pageBytes, 5 * pageBytes..<6 * pageBytes])
    }

    @Test func aFailureBehindGoodPagesIsNotTheirs() throws {
        let failing = ClosureSource { (_: Int, _: inout OutputRawSpan) throws(Unavailable) -> PageReply in
            throw Unavailable()
        }
        let overlay = try OverlaySource(failing, extents: [2 * pageBytes..<3 * pageBytes], over: Kind(kind: 1))
        #expect(words(try ask(overlay, at: 0, count: 4 * pageBytes).bytes) == [word(1, 0), word(1, pageBytes)])
        #expect(throws: (any Error).self) { try ask(overlay, at: 2 * pageBytes, count: 2 * pageBytes) }
    }

    @Test(arguments: [false, true])
    func requestsAreDividedAmongTheSources(populates: Bool) throws {
        let (upper, base) = (LaterKind(2), LaterKind(1))
        let extents = extents
        let overlay = try OverlaySource(AsynchronousSource(upper), extents: extents, over: AsynchronousSource(base))
        let statistics = try serveEveryPage(of: overlay, pages: 64, populates: populates) { page in
            word(extents.contains { $0.contains(page * pageBytes) } ? 2 : 1, page * pageBytes)
        }
        #expect(statistics.failures == 0)
        #expect(upper.asked.withLock { $0.allSatisfy { asked in extents.contains { $0.clamped(to: asked) == asked } } })
        #expect(base.asked.withLock { $0.allSatisfy { asked in !extents.contains { $0.overlaps(asked) } } })
    }

    @Test func anImmediateSourceLiesOverOneThatIsNot() throws {
        let extents = extents
        let overlay = try OverlaySource(Kind(kind: 2), extents: extents, over: AsynchronousSource(LaterKind(1)))
        _ = try serveEveryPage(of: overlay, pages: 16, populates: true) { page in
            word(extents.contains { $0.contains(page * pageBytes) } ? 2 : 1, page * pageBytes)
        }
        let slow = ClosureSource(isSlow: true) { (_: Int, _: inout OutputRawSpan) throws(Never) -> PageReply in .zero }
        #expect(throws: PagerError.self) {
            _ = try OverlaySource(slow, extents: [], over: AsynchronousSource(LaterKind(1)))
        }
    }

    @Test func requestsOfASliceEndWithIt() throws {
        let base = LaterKind(1)
        let slice = try SourceSlice(AsynchronousSource(base), 4 * pageBytes..<12 * pageBytes)
        _ = try serveEveryPage(of: slice, pages: 16, populates: true) { $0 < 8 ? word(1, ($0 + 4) * pageBytes) : 0 }
        #expect(
            base.asked.withLock { $0.allSatisfy { $0.lowerBound >= 4 * pageBytes && $0.upperBound <= 12 * pageBytes } })
    }

    // MARK: Checksums

    @Test func aChecksumIsCastagnolis() {
        let check = Array("123456789".utf8)
        #expect(check.withUnsafeBytes { CRC32C.checksum(of: $0) } == 0xE306_9283)
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let whole = bytes.withUnsafeBytes { CRC32C.checksum(of: $0) }
        for cut in [0, 1, 7, 8, 500, 1000] {
            let first = bytes[..<cut].withUnsafeBytes { CRC32C.checksum(of: $0) }
            #expect(bytes[cut...].withUnsafeBytes { CRC32C.checksum(of: $0, after: first) } == whole)
        }
    }

    private func checksums(pages: Int, wrong: Set<Int> = []) -> PageChecksums {
        var checksums = PageChecksums()
        for page in 0..<pages {
            let content = [UInt64](
                repeating: word(wrong.contains(page) ? 9 : 1, page * pageBytes), count: pageBytes / 8)
            checksums.append(content.span.bytes)
        }
        return checksums
    }

    @Test func checksumsComeBackFromTheirFile() {
        let checksums = checksums(pages: 5)
        #expect(PageChecksums(bytes: checksums.bytes) == checksums)
        #expect(PageChecksums(bytes: [1, 2, 3]) == nil)
        var zeros = PageChecksums()
        let part = [UInt8](repeating: 0, count: 100)
        zeros.append(part.span.bytes)
        #expect(zeros.areZeros(0, 4 * pageBytes))
        var mixed = PageChecksums()
        mixed.appendZeros(100)
        #expect(mixed == zeros)
        mixed.appendZeros(2 * pageBytes)
        mixed.append(checksums)
        #expect(mixed.count == 8 && mixed.areZeros(0, 3 * pageBytes))
        #expect(mixed.bytes.suffix(20) == checksums.bytes[...])
    }

    @Test func aPageThatDoesNotMatchFails() throws {
        let verified = try VerifiedSource(Kind(kind: 1), checksums(pages: 8, wrong: [3]))
        #expect(words(try ask(verified, at: 0, count: 8 * pageBytes).bytes) == (0..<3).map { word(1, $0 * pageBytes) })
        #expect(throws: VerifiedSource<Kind>.Failure.self) { try ask(verified, at: 3 * pageBytes, count: pageBytes) }
        #expect(words(try ask(verified, at: 4 * pageBytes, count: 4 * pageBytes).bytes).count == 4)
        // After the last checksum there must be zeros.
        #expect(throws: VerifiedSource<Kind>.Failure.self) { try ask(verified, at: 8 * pageBytes) }
        let zeros = try VerifiedSource(ZeroSource(), checksums(pages: 1))
        #expect(try ask(zeros, at: pageBytes, count: 4 * pageBytes).reply == .zero)
        #expect(throws: VerifiedSource<ZeroSource>.Failure.self) { try ask(zeros, at: 0) }
    }

    @Test func holesAreVerified() throws {
        let zeros = [UInt8](repeating: 0, count: pageBytes)
        let others = [UInt8](repeating: 1, count: pageBytes)
        var right = PageChecksums()
        right.append(zeros.span.bytes)
        for page in 1..<3 {
            let words = [UInt64](repeating: word(1, page * pageBytes), count: pageBytes / 8)
            right.append(words.span.bytes)
        }
        #expect(right.count == 3)
        #expect(try extentsOfHoles(right) == [pageBytes..<3 * pageBytes])
        // Where there should be data, a hole is asked for, and fails.
        #expect(try extentsOfHoles(checksums(pages: 3)) == [0..<3 * pageBytes])
        right.append(zeros.span.bytes)
        right.append(others.span.bytes)
        #expect(try extentsOfHoles(right) == [pageBytes..<3 * pageBytes, 4 * pageBytes..<Int.max])
    }

    @Test func whatIsReadyIsVerified() throws {
        let told = Places()
        let verified = try VerifiedSource(Holes(), checksums(pages: 4, wrong: [2]), report: told.report)
        let isOftenReady = verified.isOftenReady
        #expect(isOftenReady)
        var replies: [PageReply?] = []
        for page in 0..<4 { replies.append(askIfReady(verified, at: page * pageBytes)) }
        #expect(replies == [nil, .data, nil, nil])
        #expect(told.all.isEmpty)
        let failure = #expect(throws: VerifiedSource<Holes>.Failure.self) {
            try ask(verified, at: 2 * pageBytes)
        }
        #expect(
            failure.map { "\($0)" } == "the page at byte \(2 * pageBytes) is not the one of its checksum")
        #expect(told.all == [2 * pageBytes])
    }

    @Test func requestsAreVerified() throws {
        let told = Places()
        let right = try VerifiedSource(AsynchronousSource(LaterKind(1)), checksums(pages: 64))
        let statistics = try serveEveryPage(of: right, pages: 64, populates: true) { word(1, $0 * pageBytes) }
        #expect(statistics.failures == 0)

        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let wrong = try VerifiedSource(
            AsynchronousSource(LaterKind(1)), checksums(pages: 4, wrong: [2]), report: told.report)
        let pager = try Pager(UserfaultFD(), source: wrong)
        let region = try pager.add(mapping.range, options: RegionOptions(failure: .poisonAtOnce))
        try pager.start()
        #expect(error { () throws(PagerError) in try pager.populate(region) } == .pagesFailed(1))
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesCopied == 3)
        #expect(Set(told.all) == [2 * pageBytes])
    }
}
