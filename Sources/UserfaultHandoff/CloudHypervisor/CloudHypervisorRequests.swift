internal import UserfaultPager

/// The requests of Cloud Hypervisor, understood as their bytes arrive in any pieces: pure, bytes in and requests out.
///
/// Refuses what its role does not allow at this point as soon as the request's first 16 bytes are there.
struct CloudHypervisorRequests: Sendable {
    /// What a connection is for.
    enum Role: Sendable {
        /// A machine is sent: files of memory, the configuration, the state, the end, in this order.
        case snapshot
        /// Pages are asked for.
        case faults
    }

    enum Request: Hashable, Sendable {
        case start
        /// A file of memory: the next of the descriptors that were received.
        case memoryFile(slot: UInt32)
        case config([UInt8])
        case state([UInt8])
        /// The machine is complete. It was running, or paused, when it was sent.
        case complete(isPaused: Bool)
        case abandon
        case pageFault(address: UInt64, byteCount: UInt64)
    }

    private enum Phase: Int, Comparable {
        case nothing, started, configured, hasState, ended

        static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
    }

    private let role: Role
    private let limits: CloudHypervisorLimits
    private var phase = Phase.nothing
    private var slots: Set<UInt32> = []
    private var buffer: [UInt8] = []

    init(_ role: Role, limits: CloudHypervisorLimits = CloudHypervisorLimits()) {
        self.role = role
        self.limits = limits
    }

    /// Whether the peer may hang up now without having left anything unsaid.
    var isBetweenRequests: Bool { buffer.isEmpty }

    /// Takes in what has arrived.
    mutating func append(_ bytes: some Collection<UInt8>) { buffer += bytes }

    /// The next request that is complete, or `nil` if more has to arrive.
    ///
    /// - Throws: ``HandoffError/malformed(_:)``, ``HandoffError/version(_:)``, ``HandoffError/tooLong(limit:)``,
    ///   ``HandoffError/tooManyRegions(limit:)``. Nothing can be read after that.
    mutating func next() throws(HandoffError) -> Request? {
        guard buffer.count >= CloudHypervisorHeader.byteCount else { return nil }
        let header = CloudHypervisorHeader(buffer)
        guard let command = CloudHypervisorCommand(rawValue: header.code) else {
            throw .malformed("the command \(header.code) is not known")
        }
        try check(command, header)
        let end = CloudHypervisorHeader.byteCount + Int(header.length)
        guard buffer.count >= end else { return nil }
        let payload = Array(buffer[CloudHypervisorHeader.byteCount..<end])
        buffer.removeFirst(end)
        return try take(command, payload)
    }

    private func check(_ command: CloudHypervisorCommand, _ header: CloudHypervisorHeader) throws(HandoffError) {
        let isExpected =
            switch (role, command) {
            case (_, .abandon): phase < .ended
            case (.faults, .pageFault): true
            case (.snapshot, .start): phase == .nothing
            case (.snapshot, .memoryFile), (.snapshot, .config): phase == .started
            case (.snapshot, .state): phase == .configured
            case (.snapshot, .complete), (.snapshot, .completePaused): phase == .hasState
            default: false
            }
        guard isExpected else { throw .malformed("\(command) comes at the wrong time") }
        guard command != .start || header.version == 0 else { throw .version(Int(header.version)) }
        let lengths: ClosedRange<UInt64> =
            switch command {
            case .memoryFile: 4...4
            case .pageFault: 16...16
            case .config: 1...UInt64(limits.configBytes)
            case .state: 1...UInt64(limits.stateBytes)
            default: 0...0
            }
        if lengths.contains(header.length) { return }
        guard header.length <= lengths.upperBound || lengths.upperBound <= 16 else {
            throw .tooLong(limit: Int(lengths.upperBound))
        }
        throw .malformed("\(command) has \(header.length) bytes")
    }

    private mutating func take(
        _ command: CloudHypervisorCommand, _ payload: [UInt8]
    ) throws(HandoffError) -> Request {
        var reader = WordReader(payload)
        switch command {
        case .start:
            phase = .started
            return .start
        case .memoryFile:
            let slot = reader.next(UInt32.self)
            guard slots.count < limits.slots else { throw .tooManyRegions(limit: limits.slots) }
            guard slots.insert(slot).inserted else { throw .malformed("slot \(slot) comes twice") }
            return .memoryFile(slot: slot)
        case .config:
            phase = .configured
            return .config(payload)
        case .state:
            phase = .hasState
            return .state(payload)
        case .complete, .completePaused:
            phase = .ended
            return .complete(isPaused: command == .completePaused)
        case .pageFault:
            return .pageFault(address: reader.next(UInt64.self), byteCount: reader.next(UInt64.self))
        default:
            phase = .ended
            return .abandon
        }
    }
}
