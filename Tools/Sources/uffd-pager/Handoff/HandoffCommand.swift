import ArgumentParser
import UserfaultHandoff

struct HandoffCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "handoff",
        abstract: "Serve the memory of processes that hand it over by this project's own protocol.",
        discussion: """
            docs/pagers.md describes the protocol, and Examples/handoff-client.c is a client in one page of C. Every process \
            that connects is served from the same memory file.

            On SIGTERM, SIGINT and SIGHUP, the memory that is left is loaded, so that the processes go on by themselves.

            Exit codes: 0 all processes were served to their end, 1 one of them was not, 66 a file cannot be read, 70 the \
            server died and its clients were killed, 71 the kernel refused, 73 the socket cannot be made.
            """
    )

    @OptionGroup var options: SocketOptions

    var survival: SurvivalOptions? { options.survival }

    func run() async throws { try await options.serve(.handoff) }
}
