import Logging
import UserfaultFD
import UserfaultHandoff
import UserfaultPager
import UserfaultPagerService

/// A pager of whatever source.
protocol SessionPager: Sendable {
    var statistics: PagerStatistics { get }
    var recordedWorkingSet: WorkingSet { get }
    func replay(_ workingSet: WorkingSet) throws(PagerError)
    func populateAll(within limit: Duration?) throws(PagerError)
    func stop(_ ending: Ending, within limit: Duration?) async throws(PagerError)
}

extension Pager: SessionPager where Source: ~Copyable {}

/// A client that is being served: a virtual machine, or whatever process handed its memory over.
final class Session: Sendable {
    let id: Int
    /// The process that connected.
    let process: Int32
    let byteCount: Int
    let regionCount: Int
    let settings: MachineSettings
    let owner: Owner
    let pager: any SessionPager

    init(
        _ id: Int, serving memory: consuming HandedMemory, as settings: MachineSettings, on runtime: PagerRuntime,
        keptBy link: GuardLink?, logger: Logger, _ ended: @escaping @Sendable () -> Void
    ) throws {
        self.id = id
        self.settings = settings
        process = memory.peer.process
        owner = memory.owner
        byteCount = memory.regions.reduce(0) { $0 + $1.range.count }
        regionCount = memory.regions.count
        // Beyond the file's end a source has zeros, which no machine must take for its memory.
        guard memory.sourceEnd <= settings.memory.byteCount else {
            let text = "the regions end at byte \(memory.sourceEnd) of a memory of \(settings.memory.byteCount)"
            memory.refuse(text)
            throw HandoffError.malformed(text)
        }
        // From now on a death of this process does not let the client read zeros.
        try link?.keep(id, memory)
        let configuration = PagerConfiguration(workingSetCapacity: settings.record == nil ? 0 : 1 << 20) { report in
            logger.log(report)
            if case .ownerGone = report { ended() }
        }
        let options = RegionOptions(failure: settings.onFailure.policy)
        pager = try settings.memory.serve(memory, on: runtime, configuration, options)
    }

    /// Loads all memory, without holding up the caller's thread.
    ///
    /// - Returns: Why it could not be loaded, or `nil`; a session that ends meanwhile is no failure.
    func populate(within limit: Duration?) async -> String? {
        await onOwnThread { [pager] in
            do throws(PagerError) {
                try pager.populateAll(within: limit)
                return nil
            } catch .notRunning, .ownerGone {
                return nil
            } catch {
                return "\(error)"
            }
        }
    }
}
