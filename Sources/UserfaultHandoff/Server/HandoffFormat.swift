/// The protocols in which one message hands memory over.
public enum HandoffFormat: String, Hashable, Codable, Sendable, CaseIterable {
    /// Firecracker's, see ``FirecrackerMessage``.
    case firecracker
    /// This library's own, see ``HandoffMessage``.
    case handoff
}

/// The parser of one message of either protocol.
enum HandoffParser: Sendable {
    case firecracker(FirecrackerMessage)
    case handoff(HandoffMessage)

    init(_ format: HandoffFormat, limits: HandoffLimits) {
        switch format {
        case .firecracker: self = .firecracker(FirecrackerMessage(limits: limits))
        case .handoff: self = .handoff(HandoffMessage(limits: limits))
        }
    }

    /// - Returns: What the message says once it is complete, else `nil`.
    mutating func consume(_ bytes: [UInt8]) throws(HandoffError) -> HandoffMessage.Content? {
        switch self {
        case .firecracker(var message):
            let regions = try message.consume(bytes)
            self = .firecracker(message)
            // Firecracker's monitor threads and KVM touch the memory inside the kernel.
            return regions.map { HandoffMessage.Content(flags: .kernelFaults, regions: $0) }
        case .handoff(var message):
            defer { self = .handoff(message) }
            return try message.consume(bytes)
        }
    }
}
