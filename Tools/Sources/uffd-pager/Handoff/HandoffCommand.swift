import ArgumentParser
import UserfaultHandoff

struct HandoffCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "handoff",
        abstract: "Serve the memory of processes that hand it over by this project's own protocol.",
        discussion: """
            docs/pagers.md describes the protocol, and Examples/handoff-client.c is a client in one page of C. Every process \
            that connects is served from the same memory file.

            On SIGTERM and SIGINT, the memory that is left is loaded, so that the processes go on by themselves.

            Exit codes: 0 all processes were served to their end, 1 one of them was not, 66 a file cannot be read, 70 the \
            server died and its clients were killed, 71 the kernel refused, 73 the socket cannot be made.
            """
    )

    @Option(help: ArgumentHelp("Listen at this path.", valueName: "path"), completion: .file())
    var socket: String

    @Option(
        help: ArgumentHelp("The file that the memory comes from, a block device, or an nbd URI.", valueName: "source"),
        completion: .file())
    var memory: String

    @OptionGroup var machine: MachineOptions
    @OptionGroup var log: LogOptions

    @Flag(help: "End with the first process.")
    var once = false

    func run() async throws {
        let logger = log.logger
        try await SocketService(
            socket: socket, format: .handoff,
            settings: try machine.settings(name: "handoff", memory: memory, logger: logger),
            options: machine, endsWithFirst: once, logger: logger
        ).run()
    }
}
