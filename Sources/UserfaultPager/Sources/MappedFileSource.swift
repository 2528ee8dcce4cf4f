public import SystemPackage
internal import UserfaultFD

/// The content of a regular file or a block device, mapped, which the kernel copies from where it is.
///
/// Behind the file's end there are zeros. A page that the file cannot deliver, because it was cut or its disk fails,
/// fails: the engine never touches the mapping itself, so no `SIGBUS` hits it.
///
/// The end is where it was when the source was made. A file that is cut is noticed before a page of it is handed over;
/// where it may be cut between that and the copy, use ``FileSource``. Holes of a sparse file are where they were when their
/// region was added.
public struct MappedFileSource: ~Copyable, PageSource {
    /// Why a file could not be read.
    public typealias Failure = FileSource.Failure

    /// Whether reading may wait for a disk.
    public let isSlow: Bool
    private let file: OwnedFile
    private let content: PaddedMapping

    /// Maps a file.
    ///
    /// - Parameters:
    ///   - file: The file. It may be closed afterwards.
    ///   - isSlow: Whether reading may wait for a disk or a network; `false` for files in memory.
    /// - Throws: ``PagerError/file(_:path:)`` with what `fstat(2)`, `lseek(2)` or `pread(2)` answered,
    ///   ``PagerError/fileWithoutSize`` for a pipe, a terminal, or a file of `/proc`, ``PagerError/kernel(_:)`` with what
    ///   mapping it answered.
    public init(_ file: FileDescriptor, isSlow: Bool = true) throws(PagerError) {
        let owned = try OwnedFile(duplicating: file.rawValue)
        let count = try owned.size()
        content = try asPagerError { () throws(UserfaultError) in
            let content = try PaddedMapping(count)
            guard count > 0 else { return content }
            let mapped = unsafe try Mapping(
                file: file, count: count, sharing: .private, protection: .read,
                placement: .replacing(content.range.start))
            // The padding, of which the file has become a part, unmaps all of it.
            _ = mapped.release()
            return content
        }
        self.file = owned
        self.isSlow = isSlow
    }

    /// It may be asked in a signal handler.
    public var isSignalSafe: Bool { true }

    /// Where the file has data, by `lseek(2)`, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { file.extent(from: offset, end: content.count) }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        let reply = content.reply(offset, pages.freeCapacity)
        guard case .memory(let address, let count) = reply else { return reply }
        let end = min(offset + count, content.count)
        // The disk is waited for here, and not while the pager fills. What it cannot deliver `UFFDIO_COPY` will refuse.
        if isSlow { try? AddressSpace.advise(.populateRead, AddressRange(start: address, count: end - offset)) }
        // What the kernel has behind a cut in a page are zeros.
        guard let cut = cut(before: end) else { return reply }
        let whole = (cut - offset) & ~(PageSize.base.bytes - 1)
        guard whole > 0 else { throw .truncated(at: cut) }
        return .memory(at: address, count: whole)
    }

    /// Where the file ends, if that is in front of `end`.
    private func cut(before end: Int) -> Int? {
        // Of an open file the kernel always knows it.
        guard let status = try? file.status(), status.isRegular, status.count < end else { return nil }
        return status.count
    }
}

/// Memory with zeros behind it, up to the end of the largest huge page.
struct PaddedMapping: ~Copyable, Sendable {
    let mapping: Mapping
    /// The bytes in front of the zeros.
    let count: Int
    var range: AddressRange { mapping.range }

    init(_ count: Int) throws(UserfaultError) {
        mapping = try Mapping(anonymous: PageSize.oneGiB.roundUp(max(1, count)), options: .noReserve)
        self.count = count
    }

    /// What a source that has this content answers.
    func reply(_ offset: Int, _ count: Int) -> PageReply {
        guard offset < self.count else { return .zero }
        return .memory(at: range.start + UInt(offset), count: min(count, range.count - offset))
    }
}
