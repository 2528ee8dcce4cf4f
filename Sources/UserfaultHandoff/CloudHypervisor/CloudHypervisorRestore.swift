internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// Restores a machine into a Cloud Hypervisor that waits for a migration: the sending role of its offload daemon.
public struct CloudHypervisorRestore {
    /// How a machine is restored.
    public struct Options: Hashable, Sendable {
        /// Pages are loaded when they are touched, and not before the machine runs.
        public var isOnDemand: Bool
        /// The machine runs when it is restored; else it is paused.
        public var resumes: Bool

        /// Options of a restore.
        public init(isOnDemand: Bool = false, resumes: Bool = false) {
            self.isOnDemand = isOnDemand
            self.resumes = resumes
        }
    }

    /// What was restored.
    public struct Summary: Hashable, Sendable {
        /// Slots of memory.
        public let slots: Int
        /// Bytes of memory.
        public let memoryBytes: Int
        /// Requests for pages.
        public let faults: Int
    }

    private let limits: CloudHypervisorLimits
    private let options: Options
    private let config: [UInt8]
    private let state: [UInt8]
    private let memory: [CloudHypervisorMemory]

    /// Opens a machine that ``CloudHypervisorSnapshot`` or Cloud Hypervisor's offload daemon saved, without compression.
    ///
    /// - Throws: ``CloudHypervisorError/folder(_:)``, ``CloudHypervisorError/hugeMemoryFiles``.
    public init(
        from folder: String, options: Options = Options(), limits: CloudHypervisorLimits = CloudHypervisorLimits()
    ) throws(CloudHypervisorError) {
        let folder = try CloudHypervisorFolder(path: folder)
        self.limits = limits
        self.options = options
        state = try folder.read(CloudHypervisorFolder.state, limit: limits.stateBytes)
        config = try folder.read(CloudHypervisorFolder.config, limit: limits.configBytes)
        let layout: CloudHypervisorLayout
        do throws(HandoffError) {
            layout = try CloudHypervisorLayout(config: config, limits: limits)
        } catch {
            throw .folder("\(folder.path)/\(CloudHypervisorFolder.config): \(error)")
        }
        var memory: [CloudHypervisorMemory] = []
        for slot in layout.slots {
            let saved = try folder.memory(of: slot)
            do throws(UserfaultError) {
                memory.append(try CloudHypervisorMemory(slot, saved))
            } catch {
                throw .handoff(.kernel(error))
            }
        }
        self.memory = memory
        if options.isOnDemand {
            let hides = try asCloudHypervisorError { () throws(HandoffError) in
                try asHandoffError { () throws(UserfaultError) in try CloudHypervisorMemory.hasHugeMemoryFiles() }
            }
            if hides { throw .hugeMemoryFiles }
        }
    }

    /// Sends the machine, and serves its pages until Cloud Hypervisor needs no more, on the calling thread.
    ///
    /// - Parameter path: The socket at which Cloud Hypervisor waits, as `receiver_url` of `vm.receive-migration` names it.
    /// - Throws: ``CloudHypervisorError``; ``CloudHypervisorError/lostPages(_:)`` at the end.
    public func run(connectingTo path: String) throws(CloudHypervisorError) -> Summary {
        let connection = try asCloudHypervisorError { () throws(HandoffError) in
            try HandoffConnection(connectingTo: path)
        }
        try ask("start", CloudHypervisorHeader(.start).bytes, connection)
        for memory in memory {
            if !options.isOnDemand {
                try asCloudHypervisorError { () throws(HandoffError) in
                    try asHandoffError { () throws(UserfaultError) in try memory.fill() }
                }
            }
            try hand(over: memory, connection)
        }
        try ask("configuration", CloudHypervisorHeader(.config, length: config.count).bytes + config, connection)
        let last = CloudHypervisorHeader(options.resumes ? .complete : .completePaused).bytes
        let sent = CloudHypervisorHeader(.state, length: state.count).bytes + state
        guard options.isOnDemand else {
            try ask("state", sent, connection)
            try ask("end", last, connection)
            return summary(faults: 0)
        }
        // Cloud Hypervisor touches the memory while it takes the state in.
        var faults = try CloudHypervisorFaults(memory, connectingTo: path, limits)
        try ask("state", sent, connection, &faults)
        try ask("end", last, connection, &faults)
        try faults.serveToTheEnd()
        guard faults.lost == 0 else { throw .lostPages(faults.lost) }
        return summary(faults: faults.count)
    }

    private func summary(faults: Int) -> Summary {
        Summary(slots: memory.count, memoryBytes: memory.reduce(0) { $0 + $1.slot.byteCount }, faults: faults)
    }

    private func hand(
        over memory: CloudHypervisorMemory, _ connection: borrowing HandoffConnection
    ) throws(CloudHypervisorError) {
        var writer = WordWriter()
        writer.append(memory.slot.number)
        let file = memory.shared.withUnsafeDescriptor { $0 }
        try asCloudHypervisorError { () throws(HandoffError) in
            try connection.send(CloudHypervisorHeader(.memoryFile, length: writer.bytes.count).bytes)
            try connection.send(writer.bytes, [file])
        }
        try answer("memory", connection)
    }

    private func ask(
        _ step: String, _ bytes: [UInt8], _ connection: borrowing HandoffConnection
    ) throws(CloudHypervisorError) {
        try asCloudHypervisorError { () throws(HandoffError) in try connection.send(bytes) }
        try answer(step, connection)
    }

    private func ask(
        _ step: String, _ bytes: [UInt8], _ connection: borrowing HandoffConnection,
        _ faults: inout CloudHypervisorFaults
    ) throws(CloudHypervisorError) {
        try asCloudHypervisorError { () throws(HandoffError) in try connection.send(bytes) }
        try faults.serve(untilReady: connection.socket, within: limits.patience)
        try answer(step, connection)
    }

    private func answer(
        _ step: String, _ connection: borrowing HandoffConnection
    ) throws(CloudHypervisorError) {
        var bytes: [UInt8] = []
        let deadline = Deadline(after: limits.patience)
        do throws(HandoffError) {
            while bytes.count < CloudHypervisorHeader.byteCount {
                let rest = CloudHypervisorHeader.byteCount - bytes.count
                guard let part = try connection.receive(upTo: rest, until: deadline) else { throw .timedOut }
                guard !part.payload.isEmpty else { throw .closedEarly }
                bytes += part.payload
            }
        } catch {
            throw .handoff(error)
        }
        let header = CloudHypervisorHeader(bytes)
        switch CloudHypervisorStatus(rawValue: header.code) {
        case .ok where header.length == 0: return
        case .error: throw .rejected(step)
        default: throw .handoff(.malformed("this is not an answer to the \(step)"))
        }
    }
}
