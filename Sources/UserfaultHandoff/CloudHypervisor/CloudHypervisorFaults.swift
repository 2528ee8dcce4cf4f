internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// The connection over which Cloud Hypervisor asks for pages: each is written to the file that is shared with it.
struct CloudHypervisorFaults: ~Copyable {
    /// How many requests came.
    private(set) var count = 0
    /// How many of them could not be answered.
    private(set) var lost = 0

    private let memory: [CloudHypervisorMemory]
    private let connection: HandoffConnection
    private let limits: CloudHypervisorLimits
    private var requests: CloudHypervisorRequests
    private var hasEnded = false

    init(
        _ memory: [CloudHypervisorMemory], connectingTo path: String, _ limits: CloudHypervisorLimits
    ) throws(CloudHypervisorError) {
        connection = try asCloudHypervisorError { () throws(HandoffError) in
            let connection = try HandoffConnection(connectingTo: path)
            try connection.send(CloudHypervisorRole.faults.bytes)
            return connection
        }
        self.memory = memory
        self.limits = limits
        requests = CloudHypervisorRequests(.faults, limits: limits)
    }

    /// Serves pages until another socket has something to say.
    ///
    /// - Throws: ``CloudHypervisorError/handoff(_:)`` with ``HandoffError/timedOut``, and as ``serveToTheEnd()``.
    mutating func serve(untilReady socket: FileDescriptor, within limit: Duration) throws(CloudHypervisorError) {
        let deadline = Deadline(after: limit)
        while true {
            let ready = try asCloudHypervisorError { () throws(HandoffError) in
                try asHandoffError { () throws(UserfaultError) in
                    // Of no descriptor once it has ended.
                    try poll(hasEnded ? -1 : connection.socket.rawValue, socket.rawValue, until: deadline)
                }
            }
            let isAsked = ready.first != 0
            if isAsked { try take() }
            if ready.second != 0 { return }
            guard isAsked else { throw .handoff(.timedOut) }
        }
    }

    /// Serves pages until Cloud Hypervisor closes the connection, for it has all that it needs.
    ///
    /// - Throws: ``CloudHypervisorError/handoff(_:)`` if it breaks the protocol.
    mutating func serveToTheEnd() throws(CloudHypervisorError) {
        while !hasEnded { try take() }
    }

    private mutating func take() throws(CloudHypervisorError) {
        do throws(HandoffError) {
            guard let part = try connection.receive(upTo: 4096, until: .never) else { return }
            guard !part.payload.isEmpty else {
                guard requests.isBetweenRequests else { throw .closedEarly }
                hasEnded = true
                return
            }
            requests.append(part.payload)
            while let request = try requests.next() { try answer(request) }
        } catch {
            throw .handoff(error)
        }
    }

    private mutating func answer(_ request: CloudHypervisorRequests.Request) throws(HandoffError) {
        guard case .pageFault(let address, let byteCount) = request else {
            hasEnded = true
            return try connection.send(CloudHypervisorHeader(status: .ok).bytes)
        }
        let page = UInt64(PageSize.base.bytes)
        guard address % page == 0, byteCount % page == 0, byteCount > 0, let bytes = Int(exactly: byteCount),
            let memory = memory.first(where: { $0.slot.contains(address, bytes) })
        else {
            try? connection.send(CloudHypervisorHeader(status: .error).bytes)
            throw .malformed("there is no memory of \(byteCount) bytes at 0x\(String(address, radix: 16))")
        }
        count += 1
        do throws(UserfaultError) {
            try memory.load(Int(address - memory.slot.address), bytes)
        } catch {
            lost += 1
            return try connection.send(CloudHypervisorHeader(status: .error).bytes)
        }
        try connection.send(CloudHypervisorHeader(status: .ok).bytes)
    }
}
