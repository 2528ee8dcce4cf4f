public import SystemPackage
internal import UserfaultFD

/// The content of a regular file or a block device, read by `pread(2)` when it is wanted.
///
/// Behind the file's end there are zeros.
///
/// The end is where it was when the source was made: a file that is cut afterwards fails, rather than lose its content
/// to zeros. Holes of a sparse file are where they were when their region was added: they are not read, and what is written
/// into them later is not seen.
public struct FileSource: ~Copyable, PageSource {
    /// Why a file could not be read.
    public enum Failure: Error, Hashable, Sendable {
        /// `pread(2)` refused.
        case read(Errno)
        /// The file has become shorter than it was.
        case truncated(at: Int)
    }

    /// Whether reading may wait for a disk.
    public let isSlow: Bool
    /// Whether pages that the page cache has can be told from others: not in a tmpfs, and not in a memory file.
    public let isOftenReady: Bool
    /// Where the file ended when the source was made, in bytes.
    public let byteCount: Int
    private let file: OwnedFile

    /// Takes over a file.
    ///
    /// - Parameters:
    ///   - rawDescriptor: A file that nobody else will close. It is closed where this throws.
    ///   - isSlow: Whether reading may wait for a disk or a network; `false` for files in memory.
    /// - Throws: ``PagerError/file(_:path:)`` with what `fstat(2)`, `lseek(2)` or `pread(2)` answered: `EBADF` if it is not open;
    ///   ``PagerError/fileWithoutSize`` for a pipe, a terminal, or a file of `/proc`.
    public init(adopting rawDescriptor: Int32, isSlow: Bool = true) throws(PagerError) {
        let owned = try OwnedFile(adopting: rawDescriptor)
        byteCount = try owned.size()
        isOftenReady = isSlow && owned.descriptor.readsWithoutWaiting
        file = owned
        self.isSlow = isSlow
    }

    /// It may be asked in a signal handler.
    public var isSignalSafe: Bool { true }

    /// Where the file has data, by `lseek(2)`, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { file.extent(from: offset, end: byteCount) }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        guard offset < byteCount else { return .zero }
        let wanted = min(pages.freeCapacity, byteCount - offset)
        var failure: Failure?
        unsafe pages.withUnsafeMutableBytes { buffer, initialized in
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
            do throws(UserfaultError) {
                initialized = unsafe try file.descriptor.read(into: room, at: offset)
                if initialized < wanted { failure = .truncated(at: offset + initialized) }
            } catch {
                initialized = error.bytesCompleted
                failure = .read(error.errno)
            }
        }
        // What was read in front of a failure is good: the page that fails is asked for again.
        if let failure, pages.byteCount < PageSize.base.bytes { throw failure }
        if failure == nil { unsafe pages.append(repeating: 0, count: pages.freeCapacity, as: UInt8.self) }
        return .data
    }

    /// Reads what the page cache has, by `preadv2(2)` with `RWF_NOWAIT`, see ``PageSource/loadIfReady(offset:into:)``.
    public func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        guard offset < byteCount else { return .zero }
        let wanted = min(pages.freeCapacity, byteCount - offset)
        unsafe pages.withUnsafeMutableBytes { buffer, initialized in
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
            initialized = unsafe file.descriptor.readWithoutWaiting(into: room, at: offset)
        }
        if pages.byteCount == wanted {
            unsafe pages.append(repeating: 0, count: pages.freeCapacity, as: UInt8.self)
        }
        return pages.byteCount < PageSize.base.bytes ? nil : .data
    }
}

extension FileSource.Failure: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .read(let errno): "\(errno) (error \(errno.rawValue))"
        case .truncated(let end): "the file is shorter than it was: it ends at byte \(end)"
        }
    }
}
