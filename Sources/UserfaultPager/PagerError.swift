public import SystemPackage
public import UserfaultFD

/// Why a pager could not do what was asked.
public enum PagerError: Error, Hashable, Sendable {
    /// The kernel refused.
    case kernel(UserfaultError)

    /// The configuration contradicts itself or the descriptor; the text says how.
    case configuration(String)

    /// The range is not aligned to its pages, empty, or overlaps a region of this pager.
    case badRange(AddressRange)

    /// A place in the source, in bytes: negative, not a multiple of the page size, or too large for what begins there.
    case badOffset(Int)

    /// A page size, in bytes, that the memory does not have, or that is not a power of two from the base page's size on.
    case badPageSize(Int)

    /// A ``PagerState`` cannot be used; the text says why.
    case state(String)

    /// No region of this pager.
    case noSuchRegion

    /// Only a pager that runs can do this.
    case notRunning

    /// A pager starts once.
    case alreadyStarted

    /// A thread could not be made.
    case noThread(Errno)

    /// A file could not be looked at; `path` says which one if it has a name here.
    case file(Errno, path: String? = nil)

    /// A file does not tell its size: it is neither a regular file nor a block device, or the kernel makes up its
    /// content while it is read, as it does in `/proc`.
    case fileWithoutSize

    /// Some pages could not be loaded, and the failure policy was applied to them, or the source said that they are lost
    /// (``PageReply/poison``): how many.
    case pagesFailed(Int)

    /// The time was over before all was loaded: how many pages were not.
    case timedOut(pagesLeft: Int)

    /// The ``Guardian`` could not be told: a client is not guarded, or is guarded still.
    case notGuarded(Errno)

    /// The pager belongs to the process that made it. A child of its `fork` has a copy that can do nothing.
    case otherProcess

    /// The process whose memory it is has ended: nothing is served any more, though nobody has stopped the pager.
    case ownerGone
}

extension PagerError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .kernel(let error): "\(error)"
        case .configuration(let text), .state(let text): text
        case .badRange(let range): "\(range) is empty, not aligned to its pages, or overlaps another region"
        case .badOffset(let offset):
            "offset \(offset) in the source is negative, not a multiple of the page size, or too large"
        case .badPageSize(let bytes):
            "pages of \(bytes) bytes: a page size is \(PageSize.base), or that of the huge pages that the memory has"
        case .noSuchRegion: "no such region"
        case .notRunning: "the pager does not run"
        case .alreadyStarted: "the pager was started before"
        case .noThread(let errno): "no thread could be made: \(errno) (error \(errno.rawValue))"
        case .file(let errno, let path): "\(path ?? "the file") cannot be looked at: \(errno)"
        case .fileWithoutSize: "the file does not tell its size: it must be a regular file on a disk, or a block device"
        case .pagesFailed(let count): "\(count) pages could not be loaded"
        case .timedOut(let pages): "the time was over before \(pages) pages were loaded"
        case .notGuarded(let errno): "the guardian could not be told: \(errno) (error \(errno.rawValue))"
        case .otherProcess: "the pager belongs to the process that made it"
        case .ownerGone: "the process whose memory it is has ended"
        }
    }
}

/// Calls the kernel, whose answer is the pager's.
func asPagerError<Result: ~Copyable>(
    _ body: () throws(UserfaultError) -> Result
) throws(PagerError) -> Result {
    do throws(UserfaultError) {
        return try body()
    } catch {
        switch error.operation {
        case .createThread, .createLock, .eventFD, .pollSet: throw .noThread(error.errno)
        default: throw .kernel(error)
        }
    }
}
