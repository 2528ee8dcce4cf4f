public import SystemPackage
internal import UserfaultFD

/// The content of a file, mapped, which the kernel copies from where it is.
///
/// Behind the file's end there are zeros. A page that the file cannot deliver, because it was cut or its disk fails,
/// fails: the engine never touches the mapping itself, so no `SIGBUS` hits it.
public struct MappedFileSource: ~Copyable, PageSource {
    /// Whether reading may wait for a disk.
    public let isSlow: Bool
    private let content: PaddedMapping

    /// Maps a file.
    ///
    /// - Parameters:
    ///   - file: The file: at least one byte. It may be closed afterwards.
    ///   - isSlow: Whether reading may wait for a disk or a network; `false` for files in memory.
    /// - Throws: ``PagerError/file(_:)`` with what `fstat(2)` answered, ``PagerError/kernel(_:)`` with what mapping it
    ///   answered.
    public init(_ file: FileDescriptor, isSlow: Bool = true) throws(PagerError) {
        let count = try OwnedFile.size(file.rawValue)
        content = try asPagerError { () throws(UserfaultError) in
            let content = try PaddedMapping(count)
            let mapped = try Mapping(
                file: file, count: count, sharing: .private, protection: .read,
                placement: .replacing(content.range.start))
            // The padding, of which the file has become a part, unmaps all of it.
            _ = mapped.release()
            return content
        }
        self.isSlow = isSlow
    }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        content.reply(offset, pages.freeCapacity)
    }
}

/// Memory with zeros behind it, up to the end of the largest huge page.
struct PaddedMapping: ~Copyable, Sendable {
    let mapping: Mapping
    var range: AddressRange { mapping.range }

    init(_ count: Int) throws(UserfaultError) {
        mapping = try Mapping(anonymous: PageSize.oneGiB.roundUp(max(1, count)), options: .noReserve)
    }

    /// What a source that has this content answers.
    func reply(_ offset: Int, _ count: Int) -> PageReply {
        guard offset < range.count else { return .zero }
        return .memory(at: range.start + UInt(offset), count: min(count, range.count - offset))
    }
}
