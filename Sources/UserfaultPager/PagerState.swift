internal import Synchronization
public import SystemPackage
public import UserfaultFD

/// Where a pager keeps what a successor needs if its process is killed: a memory file.
///
/// Give one to a pager by ``PagerConfiguration/state``, and let a process that survives hold its descriptor, together with
/// a duplicate of the userfaultfd: threads that fault meanwhile wait. When the pager's process has ended, and not before,
/// that process, or one that it starts, makes the successor by ``Pager/init(resuming:source:owner:runtime:configuration:)``.
///
/// The file holds the regions, where they are now, and what became of each page: two bytes a page, as far as pages were
/// touched. The layout is described in `docs/pager-state.md`; it has a version, and is checked when it is read.
public final class PagerState: Sendable {
    let file: StateFile

    /// An empty state, for a new pager.
    ///
    /// - Throws: ``PagerError/kernel(_:)`` with `EMFILE` or `ENOMEM`.
    public init() throws(PagerError) {
        file = try StateFile()
    }

    /// The state that another process has left, for a pager that resumes.
    ///
    /// A new pager makes its state itself: one that no pager has used yet cannot be handed to its process.
    ///
    /// - Parameter file: The memory file; it stays the caller's.
    /// - Throws: ``PagerError/state(_:)`` if the file holds no state, or one of another version;
    ///   ``PagerError/kernel(_:)`` for what is no memory file, and with `EMFILE` or `ENOMEM`.
    public init(duplicating file: FileDescriptor) throws(PagerError) {
        self.file = try StateFile(duplicating: file.rawValue)
    }

    /// Calls with the memory file's descriptor, to send it or to duplicate it.
    ///
    /// - Parameter body: Must not close the descriptor.
    public func withUnsafeDescriptor<Result, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try file.withUnsafeDescriptor(body)
    }
}

extension Pager where Source: ~Copyable {
    /// A pager in place of one whose process was killed.
    ///
    /// It has the regions of the other, as ``regions`` says, where they are now, and goes on: what was loaded is not
    /// loaded again, what was in hand is. Threads that wait, whether their faults were read or not, fault anew. What
    /// ``takeWritten(of:)`` returned to the dead process is not reported again, and recorded working sets are lost.
    ///
    /// - Parameters:
    ///   - uffd: A duplicate of the descriptor that the other pager served.
    ///   - source: The same content.
    ///   - owner: The process whose memory it is.
    ///   - runtime: Threads that it shares with other pagers; `nil` for threads of its own.
    ///   - configuration: How to work, with the ``PagerConfiguration/state`` of the other pager.
    /// - Throws: ``PagerError/state(_:)`` if the state does not belong to such a pager; as the other initializer. Whatever is
    ///   thrown, nothing was changed: the descriptor's events and the state are there for another attempt.
    public convenience init(
        resuming uffd: consuming UserfaultFD, source: consuming Source, owner: Owner, runtime: PagerRuntime? = nil,
        configuration: PagerConfiguration
    ) throws(PagerError) {
        guard let state = configuration.state else {
            throw .configuration("a pager that resumes another needs its state")
        }
        try self.init(
            uffd, source: source, owner: owner, runtime: runtime, configuration: configuration, phase: .resuming)
        try core.restore(from: state.file)
        core.phase.withLock { $0 = .new }
    }

    /// The regions that are served, in the order in which they were added; none in a child of the process' `fork`.
    public var regions: [Region] {
        guard core.isOurs else { return [] }
        return core.registry.withLock { registry in
            registry.regions.values.map { entry in
                let parts = entry.parts.map(\.range)
                let range = AddressRange(start: parts[0].start, end: parts[parts.count - 1].end)
                return Region(id: entry.reference.id, range: range, pager: core.number)
            }
        }.sorted { $0.id < $1.id }
    }
}
