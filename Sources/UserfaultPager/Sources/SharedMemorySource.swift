internal import Synchronization
public import SystemPackage
public import UserfaultFD

/// Pages that another source makes once, in a memory file, for any number of pagers.
///
/// The content is written through a mapping of its own; faults are then resolved by `UFFDIO_CONTINUE`, which maps the
/// file's page and copies nothing. Several clients, in several processes, share one copy: give each its own pager over
/// ``SharedPages/source``, and let each map the file, with `MAP_SHARED`, or with `MAP_PRIVATE` for a copy-on-write clone.
///
/// A page that a client writes through `MAP_SHARED` is seen by all. A page that a client drops from the file
/// (`MADV_REMOVE`) is made again for whoever touches it next.
///
/// With a ``SharedPagesState``, they survive the end of their process.
///
/// A page for which the file has no room fails: it was cut, its tmpfs is full, or there are no more huge pages. A huge page
/// is made of as many answers as the base source needs for it.
public final class SharedPages<Base: PageSource & ~Copyable>: Sendable {
    typealias Failure = SharedMemorySource<Base>.Failure

    let base: Base
    private let file: OwnedFile
    private let alias: Mapping
    private let states: SharedPagesState
    private let pageShift: Int
    private let pageCount: Int
    /// Counts pages that became ready: what waiters look at.
    private let ready = FutexWord()

    private typealias State = SharedPagesState.Page

    /// Prepares a memory file to be filled.
    ///
    /// Pages that it holds already are not looked at. A file that can be sealed does not become shorter from now on; one
    /// on a mounted tmpfs or hugetlbfs cannot, and is for its clients not to cut. The file's offset (`lseek(2)`) is not
    /// kept.
    ///
    /// - Parameters:
    ///   - file: The file, which only these pages and their clients may write.
    ///   - base: Where pages come from, which answers when it is asked; offsets count from the file's start.
    ///   - count: How many bytes of the file to fill, or `nil` for all: so much of it is mapped, whatever a client has made of
    ///     the file.
    ///   - state: What a process that has ended has left of the same file, or a new state that is to outlive this process.
    /// - Throws: ``PagerError/configuration(_:)`` for a source that answers later, ``PagerError/kernel(_:)`` with what mapping the file answered, ``PagerError/file(_:path:)`` with `EMFILE`,
    ///   ``PagerError/state(_:)`` if the state is of a file with other pages.
    public init(
        _ file: borrowing Memfd, from base: consuming Base, count: Int? = nil, state: SharedPagesState? = nil
    ) throws(PagerError) {
        guard base.handling == .immediate else {
            throw .configuration("shared pages need a source that answers when it is asked")
        }
        let descriptor = file.withUnsafeDescriptor { $0.rawValue }
        self.file = try OwnedFile(duplicating: descriptor)
        // Where that is refused the load fails that finds the file too short.
        try? file.addSeals(.shrink)
        let alias = try asPagerError { () throws(UserfaultError) in
            let all = try file.status().count
            return try Mapping(file, count: min(all, count ?? all))
        }
        pageShift = file.pageSize.log2
        states = if let state { state } else { try SharedPagesState(for: file, count: count) }
        guard states.pageSize == file.pageSize else {
            throw .state("the state is of a file with pages of \(states.pageSize.bytes) bytes")
        }
        pageCount = min(alias.pageCount, states.pageCount)
        self.alias = alias
        self.base = base
        try states.heal()
    }

    /// The source for one pager.
    public var source: SharedMemorySource<Base> { SharedMemorySource(pages: self) }

    var isSlow: Bool { base.isSlow }

    private func state(_ page: Int) -> UnsafeMutablePointer<Atomic<UInt8>> { unsafe states.page(page) }

    /// The pages of a part of the file, as far as the file reaches.
    private func numbers(_ offset: Int, _ count: Int) -> Range<Int> {
        let first = offset >> pageShift
        return first..<max(first, min((offset + count) >> pageShift, pageCount))
    }

    // MARK: Loading

    /// Sees to it that pages are in the file.
    ///
    /// - Parameter room: Where the base source puts a page: at least one fits.
    func prepare(_ offset: Int, in room: UnsafeMutableRawBufferPointer) throws(Failure) -> PageReply {
        let wanted = numbers(offset, room.count)
        let one = unsafe UnsafeMutableRawBufferPointer(rebasing: room.prefix(1 << pageShift))
        for page in wanted {
            do throws(Failure) {
                if unsafe try prepare(page: page, in: one) { continue }
                return page == wanted.first ? .poison : inFile(page - wanted.lowerBound)
            } catch {
                // What is in front of it is there; the page itself is asked for again.
                guard page > wanted.lowerBound else { throw error }
                return inFile(page - wanted.lowerBound)
            }
        }
        return wanted.isEmpty ? .poison : inFile(wanted.count)
    }

    private func inFile(_ pages: Int) -> PageReply { .inFile(count: pages << pageShift) }

    /// - Returns: `false` where the page is lost.
    private func prepare(page: Int, in room: UnsafeMutableRawBufferPointer) throws(Failure) -> Bool {
        while true {
            let (exchanged, original) = unsafe state(page).pointee.compareExchange(
                expected: State.absent, desired: State.loading, ordering: .acquiringAndReleasing)
            if exchanged { break }
            if original == State.ready { return true }
            waitForAnother(page)
        }
        do throws(Failure) {
            let isThere = unsafe try fill(page, by: room)
            finish(page, isThere ? State.ready : State.absent)
            return isThere
        } catch {
            finish(page, State.absent)
            throw error
        }
    }

    /// Writes a page into the file.
    private func fill(_ page: Int, by room: UnsafeMutableRawBufferPointer) throws(Failure) -> Bool {
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let reply: PageReply
        do throws(Base.Failure) {
            reply = try base.load(offset: page << pageShift, into: &pages)
        } catch {
            throw .source(error)
        }
        switch reply {
        case .inFile: return true
        case .memory(let address, let count) where count >= room.count,
            .movable(let address, let count) where count >= room.count:
            unsafe try write(page, from: UnsafeRawPointer(bitPattern: address))
            return true
        case .data, .zeros, .memory, .movable, .poison: break
        }
        if let end = try complete(&pages, after: reply, from: page << pageShift) {
            switch end {
            case .poison: return false
            case .memory, .movable: throw .file(.badAddress)
            case .data, .zeros, .inFile: throw .incomplete
            }
        }
        _ = unsafe pages.finalize(for: room)
        unsafe try write(page, from: UnsafeRawPointer(room.baseAddress))
        return true
    }

    /// Asks for the rest of a page, of a large one as often as it takes.
    ///
    /// - Returns: `nil` if it is whole; else the reply that has brought nothing.
    private func complete(
        _ pages: inout OutputRawSpan, after reply: PageReply, from offset: Int
    ) throws(Failure) -> PageReply? {
        guard pages.takeContent(of: reply) else { return reply }
        do throws(Base.Failure) { return try base.fill(&pages, from: offset) } catch { throw .source(error) }
    }

    /// Has the kernel write a page: a store would end in `SIGBUS` where the file has no room for it, or the content is
    /// not there, and `pwrite(2)` would make a file longer that was cut.
    private func write(_ page: Int, from content: UnsafeRawPointer?) throws(Failure) {
        guard let content = unsafe content else { throw .file(.badAddress) }
        let size = 1 << pageShift
        let start = alias.range.start + UInt(page << pageShift)
        do throws(UserfaultError) {
            unsafe try AddressSpace.store(UnsafeRawBufferPointer(start: content, count: size), at: start)
        } catch {
            throw .file(error.errno == .noData ? .badAddress : error.errno)
        }
    }

    // MARK: Forgetting

    /// Takes notice that pages may have been dropped from the file.
    func forget(_ offset: Int, count: Int) {
        for page in numbers(offset, count) {
            // In hand, so that a page that another client has got again is not made twice: it may have been written.
            let (exchanged, _) = unsafe state(page).pointee.compareExchange(
                expected: State.ready, desired: State.doubted, ordering: .acquiringAndReleasing)
            if exchanged { finish(page, isInFile(page) ? State.ready : State.absent) }
        }
    }

    private func isInFile(_ page: Int) -> Bool {
        let offset = page << pageShift
        if pageShift > PageSize.base.log2 {
            // A file of huge pages has no holes that `lseek` could tell; here its pages are mapped as long as it has them.
            let here = alias.range.part(at: offset, count: PageSize.base.bytes)
            return (try? AddressSpace.isResident(here)) ?? true
        }
        do throws(UserfaultError) {
            return try file.descriptor.dataOffset(from: offset) == offset
        } catch {
            // Unknown: a page that is not made again is at worst one that reads as the file does.
            return true
        }
    }

    // MARK: Waiting

    private func finish(_ page: Int, _ result: UInt8) {
        unsafe state(page).pointee.store(result, ordering: .releasing)
        ready.signal()
    }

    private func waitForAnother(_ page: Int) {
        let seen = ready.changes
        let now = unsafe state(page).pointee.load(ordering: .acquiring)
        guard now == State.loading || now == State.doubted else { return }
        ready.wait(while: seen, until: .never)
    }
}

/// The source of one client of ``SharedPages``.
public struct SharedMemorySource<Base: PageSource & ~Copyable>: PageSource {
    /// Why a page could not be made.
    public enum Failure: Error {
        /// The base source failed.
        case source(Base.Failure)
        /// The file has no room for the page, or the base source's memory cannot be read: mostly `EFAULT`.
        case file(Errno)
        /// The base source has answered for less than a page of the base size.
        case incomplete
    }

    let pages: SharedPages<Base>

    /// Whether loading may wait, see ``PageSource/isSlow``.
    public var isSlow: Bool { pages.isSlow }
    /// Whether the base source may be asked in a signal handler, and throws nothing that is boxed.
    public var isSignalSafe: Bool { pages.base.isSignalSafe && Base.Failure.self != (any Error).self }
    /// Whether every reply is in the file, see ``PageSource/fillsFile``.
    public var fillsFile: Bool { true }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        try unsafe pages.withUnsafeMutableBytes { (buffer, initialized) throws(Failure) in
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[initialized...])
            return unsafe try self.pages.prepare(offset, in: room)
        }
    }

    /// Where the base source has data, see ``PageSource/extent(from:)``.
    public func extent(from offset: Int) -> Range<Int>? { pages.base.extent(from: offset) }

    /// Makes pages again that a client has dropped from the file, see ``PageSource/forget(offset:count:)``.
    public func forget(offset: Int, count: Int) { pages.forget(offset, count: count) }
}
