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

struct CtlCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ctl",
        abstract: "Ask a running uffd-pager serve.",
        discussion: """
            Exit codes: 0 done; 1 refused, or memory was lost that was to be loaded; 64 wrong usage; 69 nobody answers at the \
            control socket, or not in time; 74 output cannot be written; 77 this user may not use it.
            """,
        subcommands: [
            List.self, Show.self, Add.self, Remove.self, Prefetch.self, Populate.self, Pause.self,
            Resume.self, Drain.self, Metrics.self,
        ]
    )

    struct Control: ParsableArguments {
        @Option(help: ArgumentHelp("The control socket.", valueName: "path"), completion: .file())
        var control: String

        @Option(
            help: ArgumentHelp(
                """
                Give up after so many seconds without an answer. What was asked for may happen all the same. (default: 30; add, \
                populate, drain and remove wait without a limit)
                """, valueName: "n"))
        var timeout: Int?

        func validate() throws {
            guard timeout.map({ (1...86_400).contains($0) }) ?? true else {
                throw ValidationError("--timeout needs a number from 1 to 86400")
            }
        }

        /// Asks, and prints what is answered.
        ///
        /// - Parameter isLong: Whether the answer may take as long as the machine likes.
        func ask(
            _ method: HTTPMethod, _ target: String, body: (some Encodable)? = String?.none,
            isLong: Bool = false
        ) throws {
            let limit = timeout ?? (isLong ? nil : 30)
            let encoder = JSONEncoder()
            encoder.outputFormatting = .withoutEscapingSlashes
            let text = try body.map { String(decoding: try encoder.encode($0), as: UTF8.self) }
            let answer = try ControlClient(path: control, limit: limit.map { .seconds($0) })
                .ask(method, target, body: text)
            guard (200..<300).contains(answer.status) else {
                let document = try? JSONDecoder().decode(ErrorDocument.self, from: Data(answer.body.utf8))
                throw Failure(
                    answer.status == 403 ? .notAllowed : .failure,
                    document?.error ?? "the answer is \(answer.status): \(answer.body)")
            }
            guard !answer.body.isEmpty else { return }
            try Standard.write(answer.body.hasSuffix("\n") ? answer.body : answer.body + "\n")
        }
    }

    /// A machine's name, as it stands in a path.
    struct Name: ParsableArguments {
        @Argument(help: "The machine's name.")
        var name: String

        /// - Throws: ``Failure`` for a name that no machine can have, which would make another path.
        var path: String {
            get throws {
                guard MachineSpecification.isName(name) else {
                    throw Failure(.failure, "there is no machine '\(name)'")
                }
                return "/v1/machines/\(name)"
            }
        }
    }

    struct Limit: ParsableArguments {
        @Option(
            help: ArgumentHelp(
                "How long to load; without a limit by default. What is not loaded by then is reported, with exit code 1.",
                valueName: "n"))
        var seconds: Int?

        var query: String { seconds.map { "seconds=\($0)" } ?? "" }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all machines, as JSON.")
        @OptionGroup var control: Control
        func run() throws { try control.ask(.GET, "/v1/machines") }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show one machine, its sessions and statistics, as JSON.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() throws { try control.ask(.GET, try machine.path) }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Begin to listen for a machine.")
        @OptionGroup var control: Control
        @Argument(help: "A name for the machine.") var name: String
        @Option(help: "Where its monitor connects.", completion: .file()) var socket: String
        @Option(
            help: "Where its memory comes from: a file, a block device, or an nbd, nbds, nbd+unix or nbds+unix URI.",
            completion: .file()) var memory: String
        @OptionGroup var tls: TLSOptions
        @Option(help: "Which version of the memory it is, for the server's cache.") var cacheRevision: String?
        @Option(help: "What its monitor speaks.") var format: HandoffFormat = .firecracker
        @Option(help: "Load the pages first that an earlier run recorded.", completion: .file()) var prefetch: String?
        @Option(help: "Write the pages that were touched.", completion: .file()) var record: String?
        @Option(help: "What happens to a page that cannot be loaded.") var onFailure: OnFailure = .poison
        @Option(
            help: ArgumentHelp(
                "Try a page that cannot be loaded again so often. (default: 3 for files, 14 for NBD servers)",
                valueName: "n")) var retries: Int?
        @Option(
            help: ArgumentHelp("Compare the pages with the checksums in this file.", valueName: "file"),
            completion: .file()) var checksums: String?
        @Flag(help: "Load all memory in the background.") var populate = false
        @OptionGroup var access: AccessOptions

        func validate() throws { try Retries.check(retries) }

        func run() throws {
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
            machine.retries = retries
            machine.checksums = checksums.map(LocalPath.absolute)
            machine.populate = populate
            machine.allowUsers = try access.users
            machine.allowGroups = try access.groups
            machine.socketMode = access.socketMode.map { String($0.value, radix: 8) }
            try control.ask(.POST, "/v1/machines", body: machine, isLong: true)
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop listening for a machine, and end its sessions.",
            discussion: """
                If memory is to be loaded and is not, as with --seconds, it is lost as with drain: the machine is removed, and the \
                exit code is 1.
                """)
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        @Option(help: "What happens to memory that was not loaded.") var ending: SessionEnding = .load

        func run() throws {
            try control.ask(.DELETE, "\(try machine.path)?ending=\(ending.rawValue)&\(limit.query)", isLong: true)
        }
    }

    struct Prefetch: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Load the pages of a recorded working set.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @Argument(help: "The recorded working set, a file of the server's.", completion: .file()) var workingSet: String

        func run() throws {
            try control.ask(
                .POST, try machine.path + "/prefetch", body: PrefetchRequest(workingSet: LocalPath.absolute(workingSet))
            )
        }
    }

    struct Populate: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Load all memory of a machine, and wait for it.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        func run() throws {
            try control.ask(.POST, "\(try machine.path)/populate?\(limit.query)", isLong: true)
        }
    }

    struct Pause: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change no page of a machine: threads that touch one that is not there wait until it is resumed.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() throws { try control.ask(.POST, "\(try machine.path)/pause") }
    }

    struct Resume: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Go on with a machine that was paused.")
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        func run() throws { try control.ask(.POST, "\(try machine.path)/resume") }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Load all memory of a machine's sessions, and let go of them.",
            discussion: """
                With --seconds, memory that is not loaded in time is poisoned: who touches it gets SIGBUS. A machine with \
                --on-failure kill is killed. Both are reported, with exit code 1.
                """)
        @OptionGroup var control: Control
        @OptionGroup var machine: Name
        @OptionGroup var limit: Limit
        func run() throws {
            try control.ask(.POST, "\(try machine.path)/drain?\(limit.query)", isLong: true)
        }
    }

    struct Metrics: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Print the metrics for Prometheus.")
        @OptionGroup var control: Control
        func run() throws { try control.ask(.GET, "/metrics") }
    }
}
