import CTestSupport
import UserfaultFD

@testable import UserfaultPager

/// A guest of KVM, for one thread: its pages are touched by the kernel, for it.
struct Guest: ~Copyable {
    /// What the kernel answers.
    struct Failure: Error, Hashable {
        let code: CInt
    }

    /// The bytes of its pages, whatever the host's are.
    static let pageBytes = Int(CTS_GUEST_PAGE)

    /// What a userfaultfd for a guest's memory must be opened with.
    static let faults = UserfaultFD.OpenOptions(faults: .userAndKernelMode)

    private var guest = cts_guest()

    /// - Parameter memory: Its memory, which begins with ``code``.
    init(memory: AddressRange) throws(Failure) {
        _ = try Self.check(cts_guest_open(&guest, UnsafeMutableRawPointer(bitPattern: memory.start), memory.count))
    }

    deinit {
        var guest = guest
        cts_guest_close(&guest)
    }

    static var code: [UInt8] {
        var count = 0
        let start = cts_guest_code(&count)
        return Array(UnsafeRawBufferPointer(start: start, count: count))
    }

    /// Has it read pages: the sum of the words of each.
    mutating func read(_ pages: Range<Int>) throws(Failure) -> [UInt32] {
        _ = try Self.check(cts_guest_read(&guest, UInt32(pages.lowerBound), UInt32(pages.count)))
        return try run()
    }

    /// Has it write the first word of pages: a value, and one more for each further page.
    mutating func write(_ pages: Range<Int>, _ value: UInt32) throws(Failure) {
        _ = try Self.check(cts_guest_write(&guest, UInt32(pages.lowerBound), UInt32(pages.count), value))
        _ = try run()
    }

    private mutating func run() throws(Failure) -> [UInt32] {
        var sums: [UInt32] = []
        var sum: UInt32 = 0
        while try Self.check(cts_guest_next(&guest, &sum)) > 0 { sums.append(sum) }
        return sums
    }

    private static func check(_ answer: CInt) throws(Failure) -> CInt {
        guard answer >= 0 else { throw Failure(code: answer) }
        return answer
    }
}

/// A guest's memory: its code, then pages that are numbered.
struct GuestSource: PageSource {
    /// What the guest makes of a page that nobody has changed.
    static func sum(page: Int) -> UInt32 {
        if page == 0 {
            let code = Guest.code + [UInt8](repeating: 0, count: Guest.pageBytes - Guest.code.count)
            return code.withUnsafeBytes { cts_guest_sum($0.baseAddress) }
        }
        let word = word(page: page)
        return (UInt32(truncatingIfNeeded: word) &+ UInt32(word >> 32)) &* UInt32(Guest.pageBytes / 8)
    }

    static func word(page: Int) -> UInt64 { NumberedSource.word(page * Guest.pageBytes) }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        guard offset == 0 else { return NumberedSource().load(offset: offset, into: &pages) }
        for byte in Guest.code { pages.append(byte) }
        pages.append(repeating: 0, count: pageBytes - pages.byteCount, as: UInt8.self)
        return NumberedSource().load(offset: pageBytes, into: &pages)
    }
}
