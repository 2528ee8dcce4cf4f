/// Zeros: what anonymous memory is without a pager.
public struct ZeroSource: PageSource {
    /// Zeros.
    public init() {}

    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply { .zero }
}
