/// Zeros: what anonymous memory is without a pager.
public struct ZeroSource: PageSource {
    /// Zeros.
    public init() {}

    /// It may be asked in a signal handler.
    public var isSignalSafe: Bool { true }

    /// It only says where its bytes are.
    public var isInstant: Bool { true }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply { .zero }

    /// None, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { nil }
}
