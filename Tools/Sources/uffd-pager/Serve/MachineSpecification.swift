public import ArgumentParser
import FoundationEssentials
import SystemPackage
public import UserfaultHandoff

/// A machine as the configuration file and the control socket describe it.
struct MachineSpecification: Codable, Equatable, Sendable {
    /// What the machine is called: letters, digits, and `-_.`, at most 128 of them; not `.` or `..`, which vanish in paths.
    var name: String
    /// Where its monitor connects.
    var socket: String
    /// What the monitor speaks.
    var format: HandoffFormat = .firecracker
    /// Where its memory comes from: a file, a block device, or an nbd URI.
    var memory: String
    /// How to identify the server of an nbds URI, see ``TLSOptions``.
    var tlsCertificates: String?
    var tlsPskFile: String?
    var tlsUsername: String?
    /// Which version of the memory it is, by which the server's cache keeps it; nothing is kept without it.
    var cacheRevision: String?
    var prefetch: String?
    var record: String?
    var onFailure: OnFailure = .poison
    var populate = false
    /// Users that may connect, by number; without it and groups, this program's and root.
    var allowUsers: [UInt32]?
    /// Effective groups that may connect, by number; every group without it.
    var allowGroups: [UInt32]?
    /// The permissions of the socket, in octal.
    var socketMode: String?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name, socket, format, memory, tlsCertificates, tlsPskFile, tlsUsername, cacheRevision
        case prefetch, record, onFailure, populate
        case allowUsers, allowGroups, socketMode
    }

    init(name: String, socket: String, memory: String) {
        self.name = name
        self.socket = socket
        self.memory = memory
    }

    init(from decoder: any Decoder) throws {
        try decoder.refuseUnknownKeys(CodingKeys.self)
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        socket = try values.decode(String.self, forKey: .socket)
        format = try values.decodeIfPresent(HandoffFormat.self, forKey: .format) ?? .firecracker
        memory = try values.decode(String.self, forKey: .memory)
        tlsCertificates = try values.decodeIfPresent(String.self, forKey: .tlsCertificates)
        tlsPskFile = try values.decodeIfPresent(String.self, forKey: .tlsPskFile)
        tlsUsername = try values.decodeIfPresent(String.self, forKey: .tlsUsername)
        cacheRevision = try values.decodeIfPresent(String.self, forKey: .cacheRevision)
        prefetch = try values.decodeIfPresent(String.self, forKey: .prefetch)
        record = try values.decodeIfPresent(String.self, forKey: .record)
        onFailure = try values.decodeIfPresent(OnFailure.self, forKey: .onFailure) ?? .poison
        populate = try values.decodeIfPresent(Bool.self, forKey: .populate) ?? false
        allowUsers = try values.decodeIfPresent([UInt32].self, forKey: .allowUsers)
        allowGroups = try values.decodeIfPresent([UInt32].self, forKey: .allowGroups)
        socketMode = try values.decodeIfPresent(String.self, forKey: .socketMode)
        guard Self.isName(name) else {
            throw DecodingError.dataCorruptedError(
                forKey: .name, in: values,
                debugDescription: "a name has 1 to 128 letters, digits, '-', '_' and '.', and is not '.' or '..'")
        }
        let paths: [(CodingKeys, String?)] = [
            (.socket, socket), (.memory, memory), (.prefetch, prefetch), (.record, record),
            (.tlsCertificates, tlsCertificates), (.tlsPskFile, tlsPskFile),
        ]
        for case (let key, let path?) in paths where path.isEmpty || path.utf8.contains(0) {
            throw DecodingError.dataCorruptedError(
                forKey: key, in: values, debugDescription: "the name of a file is not empty, and has no character NUL")
        }
        guard try mode() != 0 else {
            throw DecodingError.dataCorruptedError(
                forKey: .socketMode, in: values, debugDescription: "permissions are in octal, such as \"0660\"")
        }
    }

    /// What a server that has died has kept of a machine.
    init(kept name: String) throws {
        guard let number = PassedDescriptors.number(.record, under: name) else {
            throw Failure(.unreadable, "nothing describes it")
        }
        let file = FileDescriptor(rawValue: number)
        let count = Int(try file.seek(offset: 0, from: .end))
        guard count <= 64 << 10 else { throw Failure(.unreadable, "its description is too long") }
        let bytes = try [UInt8](unsafeUninitializedCapacity: count) { room, used in
            used = try file.read(fromAbsoluteOffset: 0, into: UnsafeMutableRawBufferPointer(room))
        }
        self = try JSONDecoder().decode(Self.self, from: Data(bytes))
    }

    var tls: TLSOptions {
        var tls = TLSOptions()
        tls.tlsCertificates = tlsCertificates
        tls.tlsPskFile = tlsPskFile
        tls.tlsUsername = tlsUsername
        return tls
    }

    /// Whether a machine may be called so.
    static func isName(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 128 && name.utf8.allSatisfy(isPlain) && name != "." && name != ".."
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
            || [UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ".")].contains(byte)
    }

    /// The permissions of the socket; `nil` for those that the umask leaves, 0 if they are not octal.
    func mode() throws -> UInt32? {
        guard let socketMode else { return nil }
        return SocketMode(argument: socketMode)?.value ?? 0
    }
}

extension HandoffFormat: @retroactive ExpressibleByArgument {}

/// What the configuration file says.
struct ConfigurationFile: Codable, Equatable, Sendable {
    var machines: [MachineSpecification] = []
    /// The most sessions that are served at the same time.
    var maxSessions = 1024
    /// The most machines.
    var maxMachines = 1024

    enum CodingKeys: String, CodingKey, CaseIterable {
        case machines, maxSessions, maxMachines
    }

    init() {}

    init(from decoder: any Decoder) throws {
        try decoder.refuseUnknownKeys(CodingKeys.self)
        let values = try decoder.container(keyedBy: CodingKeys.self)
        machines = try values.decodeIfPresent([MachineSpecification].self, forKey: .machines) ?? []
        maxSessions = try values.decodeIfPresent(Int.self, forKey: .maxSessions) ?? 1024
        maxMachines = try values.decodeIfPresent(Int.self, forKey: .maxMachines) ?? 1024
        for (key, limit) in [(CodingKeys.maxSessions, maxSessions), (.maxMachines, maxMachines)]
        where !(1...100_000).contains(limit) {
            throw DecodingError.dataCorruptedError(
                forKey: key, in: values, debugDescription: "a limit is a number from 1 to 100000, and not \(limit)")
        }
    }

    /// - Throws: ``Failure`` with ``ExitCode/unreadable``, and what is wrong where.
    init(path: String) throws {
        do {
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            self = try JSONDocument.read(Self.self, from: file.closeAfter { try Self.content(of: file) })
        } catch let error as DecodingError {
            throw Failure(.unreadable, "\(path): \(error.sentence)")
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

/// Any key of a document.
private struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int? = nil

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

extension Decoder {
    /// A key that nobody reads is a slip of who wrote it.
    fileprivate func refuseUnknownKeys<Keys: CodingKey & CaseIterable>(_: Keys.Type) throws {
        let known = Set(Keys.allCases.map(\.stringValue))
        let container = try container(keyedBy: AnyKey.self)
        guard let unknown = container.allKeys.first(where: { !known.contains($0.stringValue) }) else { return }
        throw DecodingError.dataCorruptedError(
            forKey: unknown, in: container,
            debugDescription: "this is not known; \(known.sorted().joined(separator: ", ")) are")
    }
}

extension DecodingError {
    /// What is wrong, and where.
    var sentence: String {
        func text(_ context: Context, _ what: String) -> String {
            let path = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)" }.joined()
            return path.isEmpty ? what : "\(path): \(what)"
        }
        return switch self {
        case .keyNotFound(let key, let context): text(context, "'\(key.stringValue)' is missing")
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            text(context, context.debugDescription)
        @unknown default: "\(self)"
        }
    }
}
