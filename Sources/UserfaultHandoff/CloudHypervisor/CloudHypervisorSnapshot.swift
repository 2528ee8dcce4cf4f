internal import UserfaultFD

/// Saves a machine that Cloud Hypervisor sends by a local migration: the receiving role of its offload daemon.
public struct CloudHypervisorSnapshot {
    /// What was saved.
    public struct Summary: Hashable, Sendable {
        /// Slots of memory.
        public let slots: Int
        /// Bytes of memory, holes included.
        public let memoryBytes: Int
    }

    private let folder: CloudHypervisorFolder
    private let limits: CloudHypervisorLimits

    /// - Parameters:
    ///   - folder: A folder that is there and has no machine yet.
    ///   - limits: How much the peer may ask for.
    /// - Throws: ``CloudHypervisorError/folder(_:)``: it is not there, or has a machine.
    public init(
        into folder: String, limits: CloudHypervisorLimits = CloudHypervisorLimits()
    ) throws(CloudHypervisorError) {
        self.folder = try CloudHypervisorFolder(path: folder)
        self.limits = limits
        try self.folder.checkEmpty()
    }

    /// Takes a machine in, on the calling thread.
    ///
    /// The last request gets its answer when everything is on the disk. A peer that breaks the protocol is told so, and the machine stays where it was.
    ///
    /// - Parameter connection: What Cloud Hypervisor connected to.
    /// - Throws: ``CloudHypervisorError``. A folder that was begun has no state, and cannot be restored.
    public func receive(over connection: consuming HandoffConnection) throws(CloudHypervisorError) -> Summary {
        do throws(CloudHypervisorError) {
            return try converse(connection)
        } catch {
            if error != .abandoned { try? connection.send(CloudHypervisorHeader(status: .error).bytes) }
            throw error
        }
    }

    private func converse(_ connection: borrowing HandoffConnection) throws(CloudHypervisorError) -> Summary {
        var requests = CloudHypervisorRequests(.snapshot, limits: limits)
        var descriptors = ReceivedDescriptors.none
        var memory: [UInt32: OpenFile] = [:]
        var config: (bytes: [UInt8], layout: CloudHypervisorLayout)?
        var state: [UInt8] = []
        while true {
            let request = try asCloudHypervisorError { () throws(HandoffError) in
                try Self.next(&requests, &descriptors, connection, limits)
            }
            switch request {
            case .start, .pageFault: break
            case .memoryFile(let slot): memory[slot] = try Self.take(&descriptors, slot)
            case .config(let bytes):
                let layout = try asCloudHypervisorError { () throws(HandoffError) in
                    try CloudHypervisorLayout(config: bytes, limits: limits)
                }
                for slot in layout.slots where memory[slot.number] == nil {
                    throw .handoff(.malformed("no memory file came for slot \(slot.number): migrate with local=on"))
                }
                config = (bytes, layout)
            case .state(let bytes): state = bytes
            case .abandon:
                try? connection.send(CloudHypervisorHeader(status: .ok).bytes)
                throw .abandoned
            case .complete:
                let summary = try save(config!.bytes, config!.layout, memory, state)
                try Self.agree(connection)
                return summary
            }
            try Self.agree(connection)
        }
    }

    private static func agree(_ connection: borrowing HandoffConnection) throws(CloudHypervisorError) {
        try asCloudHypervisorError { () throws(HandoffError) in
            try connection.send(CloudHypervisorHeader(status: .ok).bytes)
        }
    }

    private func save(
        _ config: [UInt8], _ layout: CloudHypervisorLayout, _ memory: [UInt32: OpenFile], _ state: [UInt8]
    ) throws(CloudHypervisorError) -> Summary {
        for slot in layout.slots {
            guard let file = memory[slot.number] else { continue }
            guard ((try? file.file.status().count) ?? 0) >= slot.fileEnd else {
                throw .handoff(.malformed("the memory file of slot \(slot.number) is too short"))
            }
            try folder.save(file.file, slot)
        }
        try folder.write(config, CloudHypervisorFolder.config)
        try folder.write(state, CloudHypervisorFolder.state)
        return Summary(slots: layout.slots.count, memoryBytes: layout.slots.reduce(0) { $0 + $1.byteCount })
    }

    private static func take(
        _ descriptors: inout ReceivedDescriptors, _ slot: UInt32
    ) throws(CloudHypervisorError) -> OpenFile {
        guard let number = descriptors.takeFirst() else {
            throw .handoff(.malformed("no memory file came with slot \(slot)"))
        }
        return OpenFile(OwnedDescriptor(adopting: number))
    }

    /// Waits for the next request, and keeps descriptors that arrive on the way.
    private static func next(
        _ requests: inout CloudHypervisorRequests, _ descriptors: inout ReceivedDescriptors,
        _ connection: borrowing HandoffConnection, _ limits: CloudHypervisorLimits
    ) throws(HandoffError) -> CloudHypervisorRequests.Request {
        let deadline = Deadline(after: limits.patience)
        while true {
            if let request = try requests.next() { return request }
            guard var part = try connection.receive(upTo: 64 << 10, until: deadline) else { throw .timedOut }
            guard !part.isMissingDescriptors else { throw .noRoomForDescriptors }
            guard !part.payload.isEmpty else { throw .closedEarly }
            requests.append(part.payload)
            var received = ReceivedDescriptors.none
            swap(&received, &part.descriptors)
            // Each answer is waited for, so that no more than one belongs to what was said.
            descriptors.append(received, limit: 1)
        }
    }
}
