internal import Synchronization
public import SystemPackage
public import UserfaultFD

/// Where ``SharedPages`` keep what a successor needs if their process is killed: a memory file of its own.
///
/// It says which pages of the shared file are whole, with one byte for each. Let who holds the descriptor of a
/// ``PagerState`` hold this one's and the shared file's too. The successor's ``SharedPages`` go on with the file: pages that
/// are whole stay as they are, with all that clients have written to them; one that was just being made is made again,
/// since no client has seen it.
///
/// The layout is described in `docs/pager-state.md`; it has a version, and is checked when it is read.
public final class SharedPagesState: Sendable {
    private let memfd: Memfd
    private let memory: Mapping
    /// The size of the shared file's pages.
    let pageSize: PageSize
    let pageCount: Int
    /// Whether another process has left it.
    private let isLeft: Bool

    enum Page {
        /// It is to be made.
        static var absent: UInt8 { 0 }
        /// A thread makes it.
        static var loading: UInt8 { 1 }
        /// It is whole.
        static var ready: UInt8 { 2 }
        /// It was whole, and a thread looks whether it is in the file yet.
        static var doubted: UInt8 { 3 }
    }

    private enum Header: Int {
        case magic, version, pageSize, pageCount
    }

    private static var magic: UInt64 { 0x3148_5350_4446_4655 }
    private static var version: UInt64 { 1 }
    private static var headerBytes: Int { 64 << 10 }

    /// A state that says that no page was made yet.
    ///
    /// - Parameters:
    ///   - file: The shared file.
    ///   - count: How many bytes of it are filled, or `nil` for all.
    /// - Throws: ``PagerError/kernel(_:)`` with `EMFILE` or `ENOMEM`.
    public convenience init(for file: borrowing Memfd, count: Int? = nil) throws(PagerError) {
        let pageSize = file.pageSize
        do throws(UserfaultError) {
            let all = try file.status().count
            let pageCount = pageSize.pages(in: min(all, count ?? all))
            let memfd = try Memfd(name: Self.fileName, count: Self.headerBytes + pageCount)
            try memfd.addSeals(.shrink)
            let memory = try Mapping(memfd)
            self.init(memfd, memory, pageSize, pageCount, isLeft: false)
        } catch {
            throw .kernel(error)
        }
        set(.version, Self.version)
        set(.pageSize, UInt64(pageSize.bytes))
        set(.pageCount, UInt64(pageCount))
        set(.magic, Self.magic)
    }

    /// The state that another process has left, which must have ended.
    ///
    /// - Parameter file: The state's memory file; it stays the caller's.
    /// - Throws: ``PagerError/state(_:)`` if the file holds no such state, or one of another version;
    ///   ``PagerError/kernel(_:)`` for what is no memory file, and with `EMFILE` or `ENOMEM`.
    public convenience init(duplicating file: FileDescriptor) throws(PagerError) {
        let refusal = PagerError.state("the file is not the state of shared pages")
        let memfd = try asPagerError { () throws(UserfaultError) in try Memfd(duplicating: file.rawValue) }
        // Without the seal, whoever shares the file could take away what is mapped here.
        guard memfd.pageSize == .base, let seals = try? memfd.seals(), seals.contains(.shrink) else { throw refusal }
        let room = try asPagerError { () throws(UserfaultError) in try memfd.status().count } - Self.headerBytes
        guard room >= 0 else { throw refusal }
        let memory = try asPagerError { () throws(UserfaultError) in try Mapping(memfd) }
        guard Self.get(.magic, in: memory) == Self.magic else { throw refusal }
        let version = Self.get(.version, in: memory)
        guard version == Self.version else {
            throw .state("the state has the version \(version), and not \(Self.version)")
        }
        guard let pageBytes = Int(exactly: Self.get(.pageSize, in: memory)), let pageSize = PageSize(bytes: pageBytes),
            pageSize >= .base, let pageCount = Int(exactly: Self.get(.pageCount, in: memory)), pageCount <= room
        else { throw refusal }
        self.init(memfd, memory, pageSize, pageCount, isLeft: true)
    }

    private init(
        _ memfd: consuming Memfd, _ memory: consuming Mapping, _ pageSize: PageSize, _ pageCount: Int, isLeft: Bool
    ) {
        self.memfd = memfd
        self.memory = memory
        self.pageSize = pageSize
        self.pageCount = pageCount
        self.isLeft = isLeft
    }

    /// The name of the memory file, as `/proc` shows it.
    public static let fileName = "pager-pages"

    private static func get(_ field: Header, in memory: borrowing Mapping) -> UInt64 {
        unsafe memory.unsafeBaseAddress.load(fromByteOffset: field.rawValue * 8, as: UInt64.self)
    }

    private func set(_ field: Header, _ value: UInt64) {
        unsafe memory.unsafeBaseAddress.storeBytes(of: value, toByteOffset: field.rawValue * 8, as: UInt64.self)
    }

    /// Calls with the memory file's descriptor, to send it or to duplicate it.
    ///
    /// - Parameter body: Must not close the descriptor.
    public func withUnsafeDescriptor<Result, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try memfd.withUnsafeDescriptor(body)
    }

    /// What is known of a page.
    func page(_ number: Int) -> UnsafeMutablePointer<Atomic<UInt8>> {
        unsafe (memory.unsafeBaseAddress + Self.headerBytes + number).assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// Decides about pages that threads of the other process had in hand when it died.
    ///
    /// One that was doubted may be in the file, with what clients have written to it: it stays whole. If it is not there,
    /// the kernel refuses to map it, and it is made again then.
    func heal() throws(PagerError) {
        guard isLeft else { return }
        var end = Self.headerBytes
        while let data = try asPagerError({ () throws(UserfaultError) in try memfd.dataRange(from: end) }) {
            let first = max(end, data.lowerBound) - Self.headerBytes
            end = data.upperBound
            for number in first..<max(first, min(end - Self.headerBytes, pageCount)) {
                let state = unsafe page(number).pointee.load(ordering: .relaxed)
                guard state != Page.ready, state != Page.absent else { continue }
                unsafe page(number).pointee.store(
                    state == Page.doubted ? Page.ready : Page.absent, ordering: .relaxed)
            }
        }
    }
}
