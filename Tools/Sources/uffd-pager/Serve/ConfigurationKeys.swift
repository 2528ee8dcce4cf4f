/// What the manual says of each key of a configuration: the compiler asks for one that has nothing.
enum ConfigurationKeys {
    /// A line for each key.
    static var text: String {
        func lines<Key: DocumentedKey>(_: Key.Type) -> String {
            Key.allCases.map { "  \($0.stringValue): \($0.help)" }.joined(separator: "\n")
        }
        return """
            Keys of the configuration file, which is an object in JSON:
            \(lines(ConfigurationFile.CodingKeys.self))

            Keys of each machine:
            \(lines(MachineSpecification.CodingKeys.self))
            """
    }
}

protocol DocumentedKey: CodingKey, CaseIterable {
    var help: String { get }
}

extension ConfigurationFile.CodingKeys: DocumentedKey {
    var help: String {
        switch self {
        case .machines: "a list of machines. Default: none."
        case .maxSessions: "the most clients that are served at the same time, from 1 to 100000. Default: 1024."
        case .maxSessionsPerProcess: "the most of them that are of one process, from 1 to 100000. Default: 64."
        case .maxMachines: "the most machines, from 1 to 100000. Default: 1024."
        }
    }
}

extension MachineSpecification.CodingKeys: DocumentedKey {
    var help: String {
        switch self {
        case .name: "1 to 128 letters, digits, '-', '_' and '.'. Required."
        case .socket: "the path at which its monitor connects. Required."
        case .format: "what the monitor speaks: \"firecracker\" or \"handoff\". Default: \"firecracker\"."
        case .memory:
            "where the memory comes from: a file, a block device, or an nbd, nbds, nbd+unix or nbds+unix URI. Required."
        case .tlsCertificates: "as --tls-certificates, for an nbds URI: a folder."
        case .tlsPskFile: "as --tls-psk-file, for an nbds URI: a file."
        case .tlsUsername: "as --tls-username, for an nbds URI: the name of the key in that file."
        case .cacheRevision: "which version of the memory it is, for the server's cache. Default: it is not cached."
        case .prefetch: "a recorded working set, whose pages are loaded first."
        case .record: "the file to write the pages to that were touched, whenever a client ends."
        case .onFailure: "what happens to a page that cannot be loaded: \"poison\" or \"kill\". Default: \"poison\"."
        case .retries: "how often such a page is tried again, from 0 to 1000. Default: 3 for files, 14 for NBD servers."
        case .checksums: "a file with the checksums of the pages, as 'uffd-pager checksums' writes it."
        case .populate: "true to load all memory in the background. Default: false."
        case .allowUsers:
            "a list of numbers of users that may connect. Default: the server's user and root; every user with allowGroups."
        case .allowGroups: "a list of numbers of groups that may connect. Default: every group."
        case .socketMode: "the permissions of the socket, as octal digits in quotes. Default: what the umask leaves."
        }
    }
}
