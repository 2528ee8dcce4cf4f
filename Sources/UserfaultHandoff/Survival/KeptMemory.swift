public import SystemPackage
public import UserfaultFD
public import UserfaultPager

/// Memory of a client whose server has died, and whose descriptors somebody has kept.
public struct KeptMemory: ~Copyable, Sendable {
    /// What the dead server has written down.
    public let record: KeptRecord

    /// The client's process.
    public let owner: Owner

    /// The memory file that the client's regions map, if it has one: it is filled by `SharedPages`.
    public let file: Memfd?

    /// Which pages of the memory file are whole.
    public let pages: SharedPagesState?

    private let uffd: UserfaultFD
    private let state: PagerState

    /// Puts together what was kept: duplicates are made, and the descriptors stay the caller's.
    ///
    /// - Parameters:
    ///   - record: What the dead server has written down.
    ///   - userfaultfd: A duplicate of the client's userfaultfd.
    ///   - owner: The client's process.
    ///   - state: The memory file with the state of the dead server's pager.
    ///   - file: The client's memory file, if the record says that it has one.
    ///   - pages: The memory file with the state of the dead server's `SharedPages`, for a client with a memory file.
    /// - Throws: ``HandoffError/pager(_:)`` if a file holds no state; ``HandoffError/notServed(_:)`` if one is missing;
    ///   ``HandoffError/kernel(_:)``.
    public init(
        _ record: KeptRecord, userfaultfd: FileDescriptor, owner: Owner, state: FileDescriptor,
        file: FileDescriptor? = nil, pages: FileDescriptor? = nil
    ) throws(HandoffError) {
        let kept: PagerState
        var keptPages: SharedPagesState?
        var keptFile: Memfd?
        if record.content.flags.contains(.memoryFile) {
            guard let file, let pages else { throw .notServed("its memory file was not kept") }
            keptFile = try asHandoffError { () throws(UserfaultError) in try Memfd(duplicating: file.rawValue) }
            do throws(PagerError) { keptPages = try SharedPagesState(duplicating: pages) } catch { throw .pager(error) }
        }
        do throws(PagerError) { kept = try PagerState(duplicating: state) } catch { throw .pager(error) }
        let descriptor = try asHandoffError { () throws(UserfaultError) in
            let number = try OwnedDescriptor(duplicating: userfaultfd.rawValue).release()
            do throws(UserfaultError) {
                return try UserfaultFD(
                    adopting: number, features: record.content.features,
                    handlesKernelFaults: record.content.flags.contains(.kernelFaults))
            } catch {
                _ = OwnedDescriptor(adopting: number)
                throw error
            }
        }
        self.record = record
        self.owner = owner
        self.state = kept
        self.file = keptFile
        self.pages = keptPages
        uffd = descriptor
    }

    /// Makes a pager that goes on in place of the dead server's, and starts it.
    ///
    /// - Parameters:
    ///   - source: The same content; for a client with a memory file, that of `SharedPages` of ``file`` and ``pages``.
    ///   - runtime: Threads that the pager shares with others; `nil` for threads of its own.
    ///   - configuration: How to work; the state is the kept one.
    ///   - isPaused: Whether the pager begins in a pause.
    /// - Throws: ``HandoffError/notServed(_:)`` if the dead server had not begun to serve all regions;
    ///   ``HandoffError/pager(_:)``. The client must be killed then, before its descriptors are let go.
    public consuming func resume<Source: PageSource & ~Copyable>(
        from source: consuming Source,
        runtime: PagerRuntime? = nil,
        configuration: PagerConfiguration = PagerConfiguration(),
        isPaused: Bool = false
    ) throws(HandoffError) -> Pager<Source> {
        guard record.isBegun else { throw .notServed("the service had not begun when the server died") }
        var configuration = configuration
        configuration.state = state
        do throws(PagerError) {
            let pager = try Pager(
                resuming: uffd, source: source, owner: owner, runtime: runtime, configuration: configuration)
            if isPaused { try pager.pause() }
            try pager.start()
            return pager
        } catch {
            throw .pager(error)
        }
    }
}
