#if NBD
internal import UserfaultFD
internal import UserfaultPager

/// One read for neighbouring requests, which may take several commands.
@safe
final class Read {
    let letter: Letter
    /// Requests for what follows.
    let neighbours: [Letter]
    /// What is read: the requests' bytes, and what the server's blocks have besides.
    let range: Range<Int>
    /// Commands that have not finished.
    var partsLeft = 0
    /// What went wrong first.
    var failure: NBDError?
    /// A connection was lost, which says nothing about the bytes.
    var lostConnection = false
    /// Its place among the reads that are outstanding.
    var place = 0
    private var buffer: UnsafeMutableRawBufferPointer

    /// - Parameters:
    ///   - zeros: What is zeros, and is not read.
    ///   - memory: Where the buffer comes from.
    init(
        _ letter: Letter, _ neighbours: [Letter], _ range: Range<Int>, zeros: [Range<Int>], in memory: inout ReadMemory
    ) {
        self.letter = letter
        self.neighbours = neighbours
        self.range = range
        unsafe buffer = memory.take(range.count)
        for zero in zeros {
            let part = zero.clamped(to: range)
            let place = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[offsets(of: part)])
            unsafe place.initializeMemory(as: UInt8.self, repeating: 0)
        }
    }

    deinit { unsafe buffer.deallocate() }

    /// Gives the buffer away, when all is over.
    func giveBack(to memory: inout ReadMemory) {
        unsafe memory.giveBack(buffer)
        unsafe buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }

    /// Where a part of the export goes.
    @unsafe func place(of part: Range<Int>) -> UnsafeMutableRawPointer? {
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[offsets(of: part)]).baseAddress
    }

    private func offsets(of part: Range<Int>) -> Range<Int> {
        part.lowerBound - range.lowerBound..<part.upperBound - range.lowerBound
    }

    var letters: [Letter] { [letter] + neighbours }

    /// Completes the requests: all of it has come.
    func complete() {
        complete(letter)
        for letter in neighbours { complete(letter) }
    }

    private func complete(_ letter: Letter) {
        guard let request = letter.take() else { return }
        let content = unsafe UnsafeRawBufferPointer(rebasing: buffer[offsets(of: letter.range)])
        unsafe request.complete(content.bytes)
    }
}

/// Buffers for reads.
///
/// Those of one page are used again, the last one first: it is in the processor's cache.
@safe
struct ReadMemory: ~Copyable {
    private static var mostKept: Int { 64 }

    private var kept: [UnsafeMutableRawBufferPointer]
    private let pageBytes = PageSize.base.bytes

    init() {
        unsafe kept = []
    }

    deinit {
        unsafe kept.forEach { unsafe $0.deallocate() }
    }

    @unsafe mutating func take(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        if byteCount == pageBytes, let buffer = unsafe kept.popLast() { return unsafe buffer }
        return .allocate(byteCount: byteCount, alignment: 64)
    }

    @unsafe mutating func giveBack(_ buffer: UnsafeMutableRawBufferPointer) {
        guard buffer.count == pageBytes, unsafe kept.count < Self.mostKept else { return unsafe buffer.deallocate() }
        unsafe kept.append(buffer)
    }
}
#endif
