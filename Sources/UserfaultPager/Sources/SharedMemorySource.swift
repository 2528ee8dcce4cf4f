internal import CUserfaultFD
internal import Synchronization
public import UserfaultFD

/// Pages that another source makes once, in a memory file, for any number of pagers.
///
/// The content is written through a mapping of its own; faults are then resolved by `UFFDIO_CONTINUE`, which maps the
/// file's page and copies nothing. Several clients, in several processes, share one copy: give each its own pager over
/// ``SharedPages/source``, and let each map the file, with `MAP_SHARED`, or with `MAP_PRIVATE` for a copy-on-write clone.
///
/// A page that a client writes through `MAP_SHARED` is seen by all.
public final class SharedPages<Base: PageSource & ~Copyable>: Sendable {
    private let base: Base
    private let alias: Mapping
    private let states: Mapping
    private let pageShift: Int
    /// Counts pages that became ready: what waiters look at.
    private let ready: Mapping

    private enum State {
        static var absent: UInt8 { 0 }
        static var loading: UInt8 { 1 }
        static var ready: UInt8 { 2 }
    }

    /// Prepares a memory file to be filled.
    ///
    /// Pages that it holds already are not looked at.
    ///
    /// - Parameters:
    ///   - file: The file, which only these pages and their clients may write.
    ///   - base: Where pages come from; offsets count from the file's start.
    /// - Throws: `UserfaultError`: what mapping the file answered.
    public init(_ file: borrowing Memfd, from base: consuming Base) throws(UserfaultError) {
        alias = try Mapping(file)
        pageShift = file.pageSize.log2
        states = try Mapping(anonymous: alias.pageCount, options: .noReserve)
        ready = try Mapping(anonymous: 1)
        self.base = base
    }

    /// The source for one pager.
    public var source: SharedMemorySource<Base> { SharedMemorySource(pages: self) }

    var isSlow: Bool { base.isSlow }

    private func state(_ page: Int) -> UnsafeMutablePointer<Atomic<UInt8>> {
        unsafe (states.unsafeBaseAddress + page).assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// Sees to it that pages are in the file.
    func prepare(_ offset: Int, count: Int) throws(Base.Failure) -> PageReply {
        let first = offset >> pageShift
        let end = (offset + count) >> pageShift
        guard end <= alias.pageCount else { return .poison }
        for page in first..<end {
            do throws(Base.Failure) {
                guard try prepare(page: page) else { return page == first ? .poison : inFile(page - first) }
            } catch {
                // What is in front of it is there; the page itself is asked for again.
                guard page > first else { throw error }
                return inFile(page - first)
            }
        }
        return inFile(end - first)
    }

    private func inFile(_ pages: Int) -> PageReply { .inFile(count: pages << pageShift) }

    /// - Returns: `false` where the page is lost.
    private func prepare(page: Int) throws(Base.Failure) -> Bool {
        while true {
            let (exchanged, original) = unsafe state(page).pointee.compareExchange(
                expected: State.absent, desired: State.loading, ordering: .acquiringAndReleasing)
            if exchanged { break }
            if original == State.ready { return true }
            waitForAnother(page)
        }
        do throws(Base.Failure) {
            let isThere = try fill(page)
            finish(page, isThere ? State.ready : State.absent)
            return isThere
        } catch {
            finish(page, State.absent)
            throw error
        }
    }

    /// Writes a page into the file.
    private func fill(_ page: Int) throws(Base.Failure) -> Bool {
        let size = 1 << pageShift
        let room = unsafe UnsafeMutableRawBufferPointer(
            start: alias.unsafeBaseAddress + (page << pageShift), count: size)
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let reply = try base.load(offset: page << pageShift, into: &pages)
        let appended = unsafe pages.finalize(for: room)
        switch reply {
        case .poison: return false
        case .zero: unsafe room.initializeMemory(as: UInt8.self, repeating: 0)
        case .memory(let address, let count), .movable(let address, let count):
            guard count >= size, let content = unsafe UnsafeRawPointer(bitPattern: address) else { return false }
            unsafe room.copyMemory(from: UnsafeRawBufferPointer(start: content, count: size))
        case .data: return appended == size
        case .inFile: break
        }
        return true
    }

    private func finish(_ page: Int, _ result: UInt8) {
        unsafe state(page).pointee.store(result, ordering: .releasing)
        let word = unsafe ready.unsafeBaseAddress.assumingMemoryBound(to: Atomic<UInt32>.self)
        unsafe word.pointee.add(1, ordering: .acquiringAndReleasing)
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) { _ = unsafe cuffd_futex_wake($0, .max) }
    }

    private func waitForAnother(_ page: Int) {
        let word = unsafe ready.unsafeBaseAddress.assumingMemoryBound(to: Atomic<UInt32>.self)
        let seen = unsafe word.pointee.load(ordering: .acquiring)
        guard unsafe state(page).pointee.load(ordering: .acquiring) == State.loading else { return }
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) { _ = unsafe cuffd_futex_wait($0, seen, -1) }
    }
}

/// The source of one client of ``SharedPages``.
public struct SharedMemorySource<Base: PageSource & ~Copyable>: PageSource {
    let pages: SharedPages<Base>

    /// Whether loading may wait, see ``PageSource/isSlow``.
    public var isSlow: Bool { pages.isSlow }
    /// Whether every reply is in the file, see ``PageSource/fillsFile``.
    public var fillsFile: Bool { true }

    /// Answers for a page, see ``PageSource/load(offset:into:)``.
    public func load(offset: Int, into pages: inout OutputRawSpan) throws(Base.Failure) -> PageReply {
        try self.pages.prepare(offset, count: pages.freeCapacity)
    }
}
