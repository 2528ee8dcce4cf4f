import Synchronization
import UserfaultFD

@testable import UserfaultPager

/// Each page's number, eight bytes at a time: what a page should hold follows from where it is.
struct NumberedSource: PageSource {
    static func word(_ offset: Int) -> UInt64 { UInt64(offset / pageBytes) &* 0x9E37_79B9_7F4A_7C15 | 1 }

    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        var position = offset
        while pages.freeCapacity > 0 {
            pages.append(repeating: Self.word(position), count: pageBytes / 8, as: UInt64.self)
            position += pageBytes
        }
        return .data
    }
}

/// Lets others run between the look-up of a page and its fill, now and then: what they change meanwhile must be noticed.
struct HaltingSource: PageSource {
    private let numbered = NumberedSource()

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        if offset / pageBytes % 8 == 0 { NativeThread.yield() }
        return numbered.load(offset: offset, into: &pages)
    }
}

/// Numbered pages, each load of which waits at a gate.
struct GatedSource: PageSource {
    let gate: Gate

    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        gate.pass()
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

struct Unavailable: Error {}

/// Fails a number of times, then delivers.
final class FlakySource: PageSource {
    private let failuresLeft: Atomic<Int>

    var isSignalSafe: Bool { true }

    init(failures: Int) {
        failuresLeft = Atomic(failures)
    }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Unavailable) -> PageReply {
        if failuresLeft.subtract(1, ordering: .relaxed).oldValue > 0 { throw Unavailable() }
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

/// Numbered pages; counts how often it is asked, and fails from some call on.
final class CountedSource: PageSource {
    private let calls = Atomic<Int>(0)
    private let failsAfter: Int
    private let refusal: PageReply?

    var isSignalSafe: Bool { true }

    /// - Parameter refusal: What it answers in place of failing.
    init(failsAfter: Int = .max, refusal: PageReply? = nil) {
        self.failsAfter = failsAfter
        self.refusal = refusal
    }

    var count: Int { calls.load(ordering: .relaxed) }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Unavailable) -> PageReply {
        if calls.add(1, ordering: .relaxed).oldValue >= failsAfter {
            guard let refusal else { throw Unavailable() }
            return refusal
        }
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

/// Pages that are numbered and may be taken away.
struct Stock: ~Copyable {
    let mapping: Mapping
    var range: AddressRange { mapping.range }

    /// - Parameter hole: A page that is not there.
    init(pages: Int, sharing: Mapping.Sharing = .private, hole: Int? = nil) throws {
        let mapping = try Mapping(anonymous: pages * pageBytes, sharing: sharing)
        try mapping.advise(.noHugePage)
        for page in 0..<pages where page != hole {
            let word = UnsafeMutablePointer<UInt64>(bitPattern: mapping.range.start + UInt(page * pageBytes))!
            word.pointee = NumberedSource.word(page * pageBytes)
        }
        self.mapping = mapping
    }

    var source: ClosureSource<Never> {
        let start = range.start
        return ClosureSource { offset, pages in .movable(at: start + UInt(offset), count: pages.freeCapacity) }
    }
}

/// One that touches memory that it is to bring, once another thread waits to add a region.
struct SelfTouchingSource: PageSource {
    struct State: ~Copyable {
        let isAsked = Atomic<Bool>(false)
        let adder = Atomic<Int32>(0)
    }

    #if arch(x86_64)
    private static var futexCall: String { "202 " }
    #else
    private static var futexCall: String { "98 " }
    #endif

    let range: AddressRange
    let state = Shared(State())

    var isSignalSafe: Bool { true }
    var isInstant: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        state.value.isAsked.store(true, ordering: .relaxed)
        let call = "/proc/self/task/\(state.value.adder.load(ordering: .relaxed))/syscall"
        while (try? ProcFile.read(call, for: .openProcess))?.hasPrefix(Self.futexCall) != true {}
        _ = range.loadWord(pageBytes)
        return .zero
    }
}
