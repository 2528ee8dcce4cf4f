import Glibc
import SystemPackage
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

/// What a successor needs of a session: the state of its pager, which pages of the client's memory file are whole, and what
/// was agreed with the client.
final class SurvivalFiles: Sendable {
    let state: PagerState
    let pages: SharedPagesState?
    private let record: Memfd

    init(_ record: KeptRecord, _ memory: borrowing HandedMemory) throws {
        state = try PagerState()
        // Not `memory.file!`: Swift 6.3 crashes on that when it optimizes.
        switch memory.file {
        case .some(let file): pages = try SharedPagesState(for: file, count: memory.sourceEnd)
        case nil: pages = nil
        }
        self.record = try record.makeFile()
    }

    /// Says that pages may be filled from now on.
    func noteBegun() throws(HandoffError) { try KeptRecord.noteBegun(in: record) }

    fileprivate var numbers: [Int32] {
        var numbers = [state.withUnsafeDescriptor { $0.rawValue }, record.withUnsafeDescriptor { $0.rawValue }]
        if let pages { numbers.append(pages.withUnsafeDescriptor { $0.rawValue }) }
        return numbers
    }
}

extension Keepers {
    /// Has a client's descriptors kept, before its first page is filled.
    ///
    /// - Returns: What goes with them, if a successor may come who can serve the client.
    /// - Throws: `HandoffError`, ``KeepError``: without a guard, the client must not be served.
    func keep(
        _ id: Int, _ memory: borrowing HandedMemory, _ descriptors: ClientDescriptors, as settings: MachineSettings
    ) throws -> SurvivalFiles? {
        let files =
            expectsSuccessor && memory.canBeResumed
            ? try SurvivalFiles(
                memory.record(
                    machine: settings.name, source: try settings.memory.identity(within: settings.patience)), memory)
            : nil
        let file: Int32?
        switch memory.file {
        case .some(let shared) where files?.pages != nil: file = shared.withUnsafeDescriptor { $0.rawValue }
        default: file = nil
        }
        try keepClient(
            id, uffd: descriptors.userfaultfd, process: descriptors.process, further: files?.numbers ?? [], file: file)
        return files
    }
}
