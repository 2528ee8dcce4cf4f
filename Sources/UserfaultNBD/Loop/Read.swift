#if NBD
internal import UserfaultPager

/// One read for neighbouring requests, which may take several commands.
@safe
final class Read {
    let letters: [Letter]
    /// What is read: the requests' bytes, and what the server's blocks have besides.
    let range: Range<Int>
    /// Commands that have not finished.
    var partsLeft = 0
    /// What went wrong first.
    var failure: NBDError?
    /// A connection was lost, which says nothing about the bytes.
    var lostConnection = false
    private let buffer: UnsafeMutableRawBufferPointer

    /// - Parameter runs: What the bytes are: those that are zeros are not read.
    init(_ letters: [Letter], _ range: Range<Int>, zeros: [Range<Int>]) {
        self.letters = letters
        self.range = range
        unsafe buffer = .allocate(byteCount: range.count, alignment: 64)
        for zero in zeros {
            let part = zero.clamped(to: range)
            let place = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[offsets(of: part)])
            unsafe place.initializeMemory(as: UInt8.self, repeating: 0)
        }
    }

    deinit { unsafe buffer.deallocate() }

    /// Where a part of the export goes.
    @unsafe func place(of part: Range<Int>) -> UnsafeMutableRawPointer? {
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[offsets(of: part)]).baseAddress
    }

    private func offsets(of part: Range<Int>) -> Range<Int> {
        part.lowerBound - range.lowerBound..<part.upperBound - range.lowerBound
    }

    /// Completes the requests: all of it has come.
    func complete() {
        for letter in letters {
            guard let request = letter.take() else { continue }
            let content = unsafe UnsafeRawBufferPointer(rebasing: buffer[offsets(of: letter.range)])
            unsafe request.complete(content.bytes)
        }
    }
}
#endif
