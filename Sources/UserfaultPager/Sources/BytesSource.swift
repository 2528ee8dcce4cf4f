public import UserfaultFD

/// Bytes in memory, which the kernel copies from where they are.
///
/// Behind their end there are zeros.
public struct BytesSource: ~Copyable, PageSource {
    private let content: PaddedMapping

    /// Takes a copy of bytes.
    ///
    /// - Throws: `UserfaultError` with `ENOMEM`.
    public init(_ bytes: RawSpan) throws(UserfaultError) {
        let content = try PaddedMapping(bytes.byteCount)
        unsafe bytes.withUnsafeBytes { source in
            guard let first = source.baseAddress else { return }
            unsafe content.mapping.unsafeBaseAddress.copyMemory(from: first, byteCount: source.count)
        }
        self.content = content
    }

    /// It may be asked in a signal handler.
    public var isSignalSafe: Bool { true }

    /// It only says where its bytes are.
    public var isInstant: Bool { true }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        content.reply(offset, pages.freeCapacity)
    }

    /// All bytes, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { offset < content.count ? offset..<content.count : nil }
}
