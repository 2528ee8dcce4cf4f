import FoundationEssentials
import SystemPackage

/// What the configuration file says.
struct ConfigurationFile: Codable, Equatable, Sendable {
    var machines: [MachineSpecification] = []
    /// The most sessions that are served at the same time.
    var maxSessions = 1024
    /// The most of them that are of one process.
    var maxSessionsPerProcess = SessionLimits.ofProcess
    /// The most machines.
    var maxMachines = 1024

    enum CodingKeys: String, CodingKey, CaseIterable {
        case machines, maxSessions, maxSessionsPerProcess, maxMachines
    }

    init() {}

    var limits: SessionLimits { SessionLimits(all: maxSessions, ofProcess: maxSessionsPerProcess) }

    init(from decoder: any Decoder) throws {
        try decoder.refuseUnknownKeys(CodingKeys.self)
        let values = try decoder.container(keyedBy: CodingKeys.self)
        machines = try values.decodeIfPresent([MachineSpecification].self, forKey: .machines) ?? []
        maxSessions = try values.decodeNumber(SessionLimits.range, forKey: .maxSessions) ?? 1024
        maxSessionsPerProcess =
            try values.decodeNumber(SessionLimits.range, forKey: .maxSessionsPerProcess) ?? SessionLimits.ofProcess
        maxMachines = try values.decodeNumber(1...100_000, forKey: .maxMachines) ?? 1024
    }

    /// - Throws: ``Failure`` with ``ExitCode/unreadable``, and what is wrong where.
    init(path: String) throws {
        do {
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            self = try JSONDocument.read(Self.self, from: file.closeAfter { try Self.content(of: file) })
        } catch let error as JSONDocument.Complaint {
            throw Failure(.unreadable, "\(path): \(error)")
        } catch {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
    }

    private static func content(of file: FileDescriptor) throws -> Data {
        let part = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 1)
        defer { part.deallocate() }
        var content = Data()
        while case let count = try file.read(into: part), count > 0 {
            content.append(contentsOf: part.prefix(count))
            guard content.count <= 64 << 20 else { throw Errno.fileTooLarge }
        }
        return content
    }
}
