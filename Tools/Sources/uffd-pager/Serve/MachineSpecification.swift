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
    /// How often a page is tried again that cannot be loaded; what its source needs without it.
    var retries: Int?
    /// The file with the checksums of the pages.
    var checksums: String?
    var populate = false
    /// Users that may connect, by number; without it and groups, this program's and root.
    var allowUsers: [UInt32]?
    /// Effective groups that may connect, by number; every group without it.
    var allowGroups: [UInt32]?
    /// The permissions of the socket, in octal.
    var socketMode: String?

    enum CodingKeys: String, CodingKey, CaseIterable {
        case name, socket, format, memory, tlsCertificates, tlsPskFile, tlsUsername, cacheRevision
        case prefetch, record, onFailure, retries, checksums, populate
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
        format = try values.decodeChoice(HandoffFormat.self, forKey: .format) ?? .firecracker
        memory = try values.decode(String.self, forKey: .memory)
        tlsCertificates = try values.decodeIfPresent(String.self, forKey: .tlsCertificates)
        tlsPskFile = try values.decodeIfPresent(String.self, forKey: .tlsPskFile)
        tlsUsername = try values.decodeIfPresent(String.self, forKey: .tlsUsername)
        cacheRevision = try values.decodeIfPresent(String.self, forKey: .cacheRevision)
        prefetch = try values.decodeIfPresent(String.self, forKey: .prefetch)
        record = try values.decodeIfPresent(String.self, forKey: .record)
        onFailure = try values.decodeChoice(OnFailure.self, forKey: .onFailure) ?? .poison
        retries = try values.decodeNumber(Retries.range, forKey: .retries)
        checksums = try values.decodeIfPresent(String.self, forKey: .checksums)
        populate = try values.decodeIfPresent(Bool.self, forKey: .populate) ?? false
        allowUsers = try values.decodeNumbers(0...Int(UInt32.max), forKey: .allowUsers)?.map(UInt32.init)
        allowGroups = try values.decodeNumbers(0...Int(UInt32.max), forKey: .allowGroups)?.map(UInt32.init)
        socketMode = try values.decodeIfPresent(String.self, forKey: .socketMode)
        guard Self.isName(name) else {
            throw DecodingError.dataCorruptedError(
                forKey: .name, in: values,
                debugDescription: "a name has 1 to 128 letters, digits, '-', '_' and '.', and is not '.' or '..'")
        }
        guard cacheRevision != "" else {
            throw DecodingError.dataCorruptedError(
                forKey: .cacheRevision, in: values, debugDescription: "the version of a memory is not empty")
        }
        if let cacheRevision, let complaint = CacheOptions.complaint(about: cacheRevision, of: memory) {
            throw DecodingError.dataCorruptedError(forKey: .cacheRevision, in: values, debugDescription: complaint)
        }
        let paths: [(CodingKeys, String?)] = [
            (.socket, socket), (.memory, memory), (.prefetch, prefetch), (.record, record),
            (.tlsCertificates, tlsCertificates), (.tlsPskFile, tlsPskFile), (.checksums, checksums),
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
