internal import Synchronization
internal import UserfaultFD

/// A source that brings pages when it can, from any thread, many at a time.
///
/// ``load(_:)`` is called on threads of the engine that read faults: it must not wait. It keeps the request, or hands it
/// on, and whoever has the content completes it. Requests are independent of each other and may be completed in any
/// order. A request is noncopyable: <doc:WritingASource> shows how to keep many of them.
public protocol AsynchronousPageSource: ~Copyable, Sendable {
    /// Takes a request.
    borrowing func load(_ request: consuming PageRequest)

    /// Where the source has data, see ``PageSource/extent(from:)``.
    ///
    /// Everything is data unless said.
    borrowing func extent(from offset: Int) -> Range<Int>?

    /// Whether ``load(_:)`` may be called by a thread that completes a request of this source, see
    /// ``PageSource/isReentrant``.
    ///
    /// `false` unless said.
    var isReentrant: Bool { get }
}

extension AsynchronousPageSource where Self: ~Copyable {
    /// Everything is data, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { offset..<Int.max }
    /// Whether requests may be handed over while one is completed, see ``PageSource/isReentrant``.
    public var isReentrant: Bool { false }
}

/// Pages that an ``AsynchronousPageSource`` is asked for: completed exactly once.
///
/// A request that is dropped fails its pages, as ``fail()`` does.
public struct PageRequest: ~Copyable, Sendable {
    /// Why the pages are wanted.
    public enum Priority: Hashable, Sendable, Comparable {
        /// They are loaded ahead: no thread waits for them.
        case ahead
        /// A thread waits for the first page.
        case demand
    }

    /// Where the first page begins in the source, in bytes.
    public let offset: Int

    /// Whole pages, in bytes.
    public let byteCount: Int

    /// Why they are wanted.
    public let priority: Priority

    let work: any RequestedWork

    init(_ work: any RequestedWork, offset: Int, byteCount: Int, priority: Priority) {
        self.work = work
        self.offset = offset
        self.byteCount = byteCount
        self.priority = priority
    }

    deinit {
        work.settle(nil)
    }

    /// Whether nobody wants the pages any more: their region or their pager went, or they took too long.
    ///
    /// Completing the request then changes nothing.
    public var isCancelled: Bool { work.isCancelled }

    /// Fills the pages with content.
    ///
    /// - Parameter content: Whole pages, from the first one on; with fewer than were asked for, the rest is asked for
    ///   again if it is wanted. With less than one page the request fails.
    public consuming func complete(_ content: borrowing RawSpan) {
        unsafe content.withUnsafeBytes { bytes in
            work.settle(.memory(at: UInt(bitPattern: bytes.baseAddress), count: bytes.count))
        }
        discard(self)
    }

    /// Fills the pages as a reply says.
    ///
    /// - Parameter reply: Any but ``PageReply/data``, which fails the request: content is given as bytes.
    public consuming func complete(_ reply: PageReply) {
        work.settle(reply)
        discard(self)
    }

    /// Fails the pages: the region's ``FailurePolicy`` says what happens.
    public consuming func fail() {
        work.settle(nil)
        discard(self)
    }
}

extension PageRequest {
    /// A request of one's own to a source that no pager asks: to read it, or to test it.
    ///
    /// - Parameters:
    ///   - offset: Where the first page begins in the source, in bytes.
    ///   - byteCount: Whole pages, in bytes.
    ///   - priority: Why they are wanted.
    ///   - answer: Gets the answer once, `nil` for a failure, on the thread that completes the request: it must not wait.
    ///     Content is ``PageReply/memory(at:count:)``, and at its address only while this is called.
    public init(
        offset: Int, byteCount: Int, priority: Priority = .ahead, answer: @escaping @Sendable (PageReply?) -> Void
    ) {
        self.init(
            AnsweredOnce(isCancelled: { false }, answer), offset: offset, byteCount: byteCount, priority: priority)
    }

    /// A request to another source, whose answer completes this one.
    ///
    /// - Parameters:
    ///   - offset: Where its first page begins in that source, in bytes.
    ///   - byteCount: Whole pages, in bytes; not more than this request's.
    ///   - answer: Gets that source's answer, `nil` for a failure, and gives this request's to the function that it also
    ///     gets. Content is at its address only while that is called.
    consuming func handedOn(
        offset: Int, byteCount: Int, _ answer: @escaping HandedOn.Answer
    ) -> PageRequest {
        let priority = priority
        return PageRequest(HandedOn(self, answer), offset: offset, byteCount: byteCount, priority: priority)
    }
}

/// A request that waits for another's answer.
final class HandedOn: RequestedWork {
    typealias Answer = @Sendable (PageReply?, (PageReply?) -> Void) -> Void

    private let original: PageRequest
    private let answer: Answer

    init(_ original: consuming PageRequest, _ answer: @escaping Answer) {
        self.original = original
        self.answer = answer
    }

    var isCancelled: Bool { original.isCancelled }

    func settle(_ reply: PageReply?) { answer(reply) { original.work.settle($0) } }
}

/// Settling twice does nothing: what drops the request afterwards is too late.
private func discard(_ request: consuming PageRequest) {}

/// What a request is about.
protocol RequestedWork: AnyObject, Sendable {
    var isCancelled: Bool { get }

    /// Ends the request, once; `nil` for a failure.
    func settle(_ reply: PageReply?)
}

/// An ``AsynchronousPageSource`` as the source of a ``Pager``.
public struct AsynchronousSource<Base: AsynchronousPageSource & ~Copyable>: ~Copyable, PageSource {
    let base: Base

    /// - Parameter base: What is asked.
    public init(_ base: consuming Base) {
        self.base = base
    }

    /// Hands a request on, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) { base.load(request) }

    /// Asks the base source, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { base.extent(from: offset) }

    /// ``PageHandling/asynchronous``.
    public var handling: PageHandling { .asynchronous }

    /// Asks the base source, see ``PageSource/isReentrant``.
    public var isReentrant: Bool { base.isReentrant }

    /// Never called: requests are handed on.
    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply { .poison }
}

/// How a source works.
public enum PageHandling: Hashable, Sendable {
    /// It answers when it is asked.
    case immediate
    /// It completes requests later.
    case asynchronous
}
