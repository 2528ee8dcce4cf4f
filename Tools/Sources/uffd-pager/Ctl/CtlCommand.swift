import ArgumentParser
import FoundationEssentials
import Glibc
import NIOHTTP1
import UserfaultHandoff

/// Paths as the server needs them, which runs in another folder.
private enum LocalPath {
    static func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/"), let folder = getcwd(nil, 0) else { return path }
        defer { free(folder) }
        return "\(String(cString: folder))/\(path)"
    }
}

struct CtlCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Ask a running uffd-pager serve.",
        discussion: "Exit codes: 0 done, 1 refused, 69 nobody answers at the control socket.",
        subcommands: [
            List.self, Show.self, Add.self, Remove.self, Prefetch.self, Populate.self, Pause.self,
            Resume.self, Drain.self, Metrics.self,
        ]
    )

    struct Control: ParsableArguments {
        @Option(help: ArgumentHelp("The control socket.", valueName: "path"), completion: .file())
        var control: String

        /// Asks, and prints what is answered.
        func ask(_ method: HTTPMethod, _ target: String, body: (some Encodable)? = String?.none) async throws {
            let encoder = JSONEncoder()
            let text = try body.map { String(decoding: try encoder.encode($0), as: UTF8.self) }
            let answer = try await ControlClient(path: control).ask(method, target, body: text)
            guard (200..<300).contains(answer.status.code) else {
                let document = try? JSONDecoder().decode(ErrorDocument.self, from: Data(answer.body.utf8))
                throw Failure(.failure, document?.error ?? "the answer is \(answer.status): \(answer.body)")
            }
            guard !answer.body.isEmpty else { return }
            try Standard.write(answer.body.hasSuffix("\n") ? answer.body : answer.body + "\n")
        }
    }

    /// A machine's name, as it stands in a path.
    struct Name: ParsableArguments {
        @Argument(help: "The machine's name.")
        var name: String

        var path: String {
            let isPlain = name.utf8.allSatisfy { byte in
                Character(Unicode.Scalar(byte)).isASCII
                    && (Character(Unicode.Scalar(byte)).isLetter
                        || Character(Unicode.Scalar(byte)).isNumber || "-_.".utf8.contains(byte))
            }
            // A name that no machine has is answered as one.
            return "/v1/machines/" + (isPlain ? name : "-")
        }
    }

    struct Limit: ParsableArguments {
        @Option(help: ArgumentHelp("How long to load; without a limit by default.", valueName: "n"))
        var seconds: Int?

        var query: String { seconds.map { "seconds=\($0)" } ?? "" }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all machines, as JSON.")
        @OptionGroup var control: Control
        func run() async throws { try await control.ask(.GET, "/v1/machines") }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show one machine, its sessions and statistics, as JSON.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() async throws { try await control.ask(.GET, machine.path) }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Begin to listen for a machine.")
        @OptionGroup var control: Control
        @Argument(help: "A name for the machine.") var name: String
        @Option(help: "Where its monitor connects.", completion: .file()) var socket: String
        @Option(help: "The file that its memory comes from, or an nbd URI.", completion: .file()) var memory: String
        @OptionGroup var tls: TLSOptions
        @Option(help: "Which version of the memory it is, for the server's cache.") var cacheRevision: String?
        @Option(help: "What its monitor speaks.") var format: HandoffFormat = .firecracker
        @Option(help: "Load the pages first that an earlier run recorded.", completion: .file()) var prefetch: String?
        @Option(help: "Write the pages that were touched.", completion: .file()) var record: String?
        @Option(help: "What happens to a page that cannot be loaded.") var onFailure: OnFailure = .poison
        @Flag(help: "Load all memory in the background.") var populate = false
        @Option(help: "Accept processes of this user, by number. Can be repeated.") var allowUser: [UInt32] = []
        @Option(help: "Accept processes of this group, by number. Can be repeated.") var allowGroup: [UInt32] = []
        @Option(help: "The permissions of the socket, in octal.") var socketMode: String?

        func run() async throws {
            var machine = MachineSpecification(
                name: name, socket: LocalPath.absolute(socket),
                memory: MemorySource.isAddress(memory) ? memory : LocalPath.absolute(memory))
            machine.format = format
            machine.tlsCertificates = tls.tlsCertificates.map(LocalPath.absolute)
            machine.tlsPskFile = tls.tlsPskFile.map(LocalPath.absolute)
            machine.tlsUsername = tls.tlsUsername
            machine.cacheRevision = cacheRevision
            machine.prefetch = prefetch.map(LocalPath.absolute)
            machine.record = record.map(LocalPath.absolute)
            machine.onFailure = onFailure
            machine.populate = populate
            machine.allowUsers = allowUser.isEmpty ? nil : allowUser
            machine.allowGroups = allowGroup.isEmpty ? nil : allowGroup
            machine.socketMode = socketMode
            try await control.ask(.POST, "/v1/machines", body: machine)
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Stop listening for a machine, and end its sessions.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        @Option(help: "What happens to memory that was not loaded.") var ending: SessionEnding = .load

        func run() async throws {
            try await control.ask(.DELETE, "\(machine.path)?ending=\(ending.rawValue)&\(limit.query)")
        }
    }

    struct Prefetch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Load the pages of a recorded working set.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @Argument(help: "The recorded working set, a file of the server's.", completion: .file()) var workingSet: String

        func run() async throws {
            try await control.ask(
                .POST, machine.path + "/prefetch", body: PrefetchRequest(workingSet: LocalPath.absolute(workingSet)))
        }
    }

    struct Populate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Load all memory of a machine, and wait for it.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        func run() async throws { try await control.ask(.POST, "\(machine.path)/populate?\(limit.query)") }
    }

    struct Pause: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change no page of a machine: threads that touch one that is not there wait until it is resumed.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() async throws { try await control.ask(.POST, "\(machine.path)/pause") }
    }

    struct Resume: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go on with a machine that was paused.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() async throws { try await control.ask(.POST, "\(machine.path)/resume") }
    }

    struct Drain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Load all memory of a machine's sessions, and let go of them.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        func run() async throws { try await control.ask(.POST, "\(machine.path)/drain?\(limit.query)") }
    }

    struct Metrics: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Print the metrics for Prometheus.")
        @OptionGroup var control: Control
        func run() async throws { try await control.ask(.GET, "/metrics") }
    }
}
