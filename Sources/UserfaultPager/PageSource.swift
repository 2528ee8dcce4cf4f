/// Where pages come from.
///
/// The engine asks from its own threads, several at once if it has several; never from a Task. A source may block: then
/// say so in ``isSlow``, and one slow page does not delay another. It must not touch memory that the same pager serves:
/// it would wait for itself. With `UserfaultFD.Features.threadID` the engine notices that, and ends the process rather than
/// hang, see ``PagerReport/selfDeadlock(thread:address:)``. Without that feature it hangs.
///
/// Offsets are bytes and count from where ``Pager/add(_:offset:options:)`` said the region begins; they and the room
/// are multiples of the region's page size.
public protocol PageSource: ~Copyable, Sendable {
    /// Why a page cannot be loaded: `Never` for sources that always can.
    associatedtype Failure: Error

    /// Answers for the page at `offset`, and where it is convenient for those behind it.
    ///
    /// `pages` is empty, and has room for as many pages as the engine would like, at least one. Whoever asks a source for
    /// what follows gives it another empty room: `offset` is always where the room begins. A source that answers
    /// ``PageReply/data`` appends whole pages, from the first one on, as many as it likes; bytes of a last page behind
    /// the content's end are for the source to append too. ``PageReply/poison`` is about the first page alone.
    ///
    /// - Parameters:
    ///   - offset: Where the first page begins, in bytes.
    ///   - pages: Empty room for one page or many.
    /// - Returns: What the pages are.
    /// - Throws: ``Failure``; the engine then does what the region's ``FailurePolicy`` says.
    borrowing func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply

    /// Answers as ``load(offset:into:)`` does if that needs no waiting, and does nothing else.
    ///
    /// Asked first, on a thread that serves other pagers too, if ``isOftenReady``: for sources that are slow only sometimes, such
    /// as files whose pages are mostly in memory. After `nil` a thread that may wait calls ``load(offset:into:)``.
    ///
    /// - Parameters:
    ///   - offset: Where the first page begins, in bytes.
    ///   - pages: Empty room for one page or many. What was appended before `nil` is returned does not count.
    /// - Returns: What the pages are, or `nil` if it would have to wait or cannot load them. `nil` unless said.
    borrowing func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply?

    /// Where the source has data, from an offset on: for sources that are mostly holes.
    ///
    /// Asked on the thread that adds a region, from its start to its end. What lies between is zeros, for good: it is not
    /// loaded, ``Pager/populate(_:within:)`` passes it over, and when the service ends it is left as the plain zeros of
    /// the memory. Everything is data unless said. A page between that is touched is asked for all the same if
    /// ``fillsFile``: others may share it.
    ///
    /// - Parameter offset: In bytes.
    /// - Returns: The first bytes that may be other than zeros and end after `offset`; `nil` if only zeros follow.
    borrowing func extent(from offset: Int) -> Range<Int>?

    /// Whether ``load(offset:into:)`` may wait for a disk, a network or another process.
    ///
    /// Slow sources are asked by worker threads, while another thread goes on reading faults. `false` unless said.
    var isSlow: Bool { get }

    /// Whether ``loadIfReady(offset:into:)`` is worth a try, for a slow source. `false` unless said.
    var isOftenReady: Bool { get }

    /// Whether ``load(offset:into:)`` may be called in a signal handler, for ``PagerConfiguration/Service/inThread``.
    ///
    /// It then takes no memory from the heap, no lock that an interrupted thread can have, and makes only calls that
    /// `signal-safety(7)` lists. Its `Failure` is a type and not `any Error`, which takes memory for each error. `false`
    /// unless said.
    var isSignalSafe: Bool { get }

    /// Whether ``load(offset:into:)`` only says where its pages are: it makes no call, takes no lock, no memory from the heap, and
    /// touches none but its own.
    ///
    /// A thread that serves itself then asks it while nothing else can change what is served, and looks up once what it would
    /// otherwise look up twice. Of a source that is ``isSignalSafe`` as well. `false` unless said.
    var isInstant: Bool { get }

    /// Whether every reply is ``PageReply/inFile(count:)``: regions are then registered for minor faults as well, so that
    /// nobody sees a page that is being written. `false` unless said.
    var fillsFile: Bool { get }

    /// Whether pages come when they are asked for. ``PageHandling/immediate`` unless said; implement an
    /// ``AsynchronousPageSource`` for pages that come later.
    var handling: PageHandling { get }

    /// Whether a thread that completes a request may hand over others meanwhile, for ``PageHandling/asynchronous``.
    ///
    /// Pages that are loaded in the background then need no other thread: each that has come is followed by the request for
    /// the next one. Such a source completes requests while it holds no lock that ``hand(_:)`` takes. `false` unless said.
    var isReentrant: Bool { get }

    /// Takes a request in place of ``load(offset:into:)``, for ``PageHandling/asynchronous``. Fails it unless said.
    borrowing func hand(_ request: consuming PageRequest)

    /// Takes notice that the file has no page where ``load(offset:into:)`` said there is one.
    ///
    /// Somebody has dropped it from the file. The page is then asked for again. Does nothing unless said.
    ///
    /// - Parameters:
    ///   - offset: Where the first page begins, in bytes.
    ///   - count: Whole pages, in bytes. Some of them may be in the file, and must not be written again.
    borrowing func forget(offset: Int, count: Int)
}

extension PageSource where Self: ~Copyable {
    /// Everything is data, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { offset..<Int.max }
    /// Whether loading may wait, see ``PageSource/isSlow``.
    public var isSlow: Bool { false }
    /// Says that it would have to wait, see ``PageSource/loadIfReady(offset:into:)``.
    public func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? { nil }
    /// Whether asking without waiting is worth a try, see ``PageSource/isOftenReady``.
    public var isOftenReady: Bool { false }
    /// Whether it may be asked in a signal handler, see ``PageSource/isSignalSafe``.
    public var isSignalSafe: Bool { false }
    /// Whether it only says where its pages are, see ``PageSource/isInstant``.
    public var isInstant: Bool { false }
    /// Whether every reply is in the file, see ``PageSource/fillsFile``.
    public var fillsFile: Bool { false }
    /// Pages come when they are asked for, see ``PageSource/handling``.
    public var handling: PageHandling { .immediate }
    /// Whether requests may be handed over while one is completed, see ``PageSource/isReentrant``.
    public var isReentrant: Bool { false }
    /// Fails the request, see ``PageSource/hand(_:)``.
    public func hand(_ request: consuming PageRequest) { request.fail() }
    /// Does nothing, see ``PageSource/forget(offset:count:)``.
    public func forget(offset: Int, count: Int) {}
}

/// What a ``PageSource`` answers.
public enum PageReply: Hashable, Sendable {
    /// The content was appended; resolved by `UFFDIO_COPY`.
    case data

    /// The pages hold zeros; resolved by `UFFDIO_ZEROPAGE` where the memory allows it. `count` is in bytes: whole pages,
    /// at least one. It may be more than was asked for.
    case zeros(count: Int)

    /// All pages that were asked for hold zeros.
    public static var zero: PageReply { .zeros(count: .max) }

    /// The page is lost: whoever touches it gets `SIGBUS`. Resolved by `UFFDIO_POISON`.
    case poison

    /// The content lies at this address of this process, page by page as it was asked for; resolved by `UFFDIO_COPY`
    /// from there, without a copy of the engine's. It must stay there until the pager has stopped. `count` is in bytes:
    /// whole pages, at least one.
    case memory(at: UInt, count: Int)

    /// The content lies in anonymous memory at this page-aligned address of this process, and may be taken away;
    /// resolved by `UFFDIO_MOVE` where region, process and kernel allow it, else by `UFFDIO_COPY`. `count` is in
    /// bytes: whole pages, at least one.
    ///
    /// A page that is not there, because nothing was ever stored to it or because it was moved before, fails: it is not
    /// taken for zeros. Store to it, or answer ``zero``. Do not rely on the failure: a page that was read is there, as zeros, and
    /// where pages are copied nobody can tell, and it is zeros.
    case movable(at: UInt, count: Int)

    /// The content is in the file that the region maps, written through another mapping of it; resolved by
    /// `UFFDIO_CONTINUE`. `count` is in bytes: whole pages, at least one.
    case inFile(count: Int)
}

extension PageReply {
    /// The same content, which stays where it is.
    var staying: PageReply {
        guard case .movable(let address, let count) = self else { return self }
        return .memory(at: address, count: count)
    }

    /// The same answer, for no more than so many bytes.
    func limited(to most: Int) -> PageReply {
        switch self {
        case .data, .poison: self
        case .zeros(let count): .zeros(count: min(count, most))
        case .memory(let address, let count): .memory(at: address, count: min(count, most))
        case .movable(let address, let count): .movable(at: address, count: min(count, most))
        case .inFile(let count): .inFile(count: min(count, most))
        }
    }
}
