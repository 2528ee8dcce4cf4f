/// Pages that a closure makes.
public struct ClosureSource<Failure: Error>: PageSource {
    /// Whether loading may wait, see ``PageSource/isSlow``.
    public let isSlow: Bool
    /// Whether the closure may be called in a signal handler, see ``PageSource/isSignalSafe``.
    public let isSignalSafe: Bool
    private let body: @Sendable (Int, inout OutputRawSpan) throws(Failure) -> PageReply

    /// Pages that a closure makes.
    ///
    /// - Parameters:
    ///   - isSlow: Whether the closure may wait for something.
    ///   - isSignalSafe: Whether the closure may be called in a signal handler. It then throws no error that is boxed:
    ///     its `Failure` is a type and not `any Error`.
    ///   - body: As ``PageSource/load(offset:into:)``: called by several threads at once if the pager has several.
    public init(
        isSlow: Bool = false,
        isSignalSafe: Bool = false,
        _ body: @escaping @Sendable (_ offset: Int, _ pages: inout OutputRawSpan) throws(Failure) -> PageReply
    ) {
        self.isSlow = isSlow
        self.isSignalSafe = isSignalSafe
        self.body = body
    }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        try body(offset, &pages)
    }
}
