import ArgumentParser
import UserfaultHandoff

struct HandoffCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "handoff",
        abstract: "Serve the memory of processes that hand it over by this project's own protocol.",
        discussion: """
            The guide pagers.md describes the protocol, and handoff-client.c is a client in one page of C. The Debian package \
            has them in /usr/share/doc/uffd-pager. Every process that connects is served from the same memory file.

            On SIGTERM and SIGINT, the memory that is left is loaded, so that the processes go on by themselves. SIGHUP does the \
            same, unless --supervise or --fd-store is given.

            \(ExitCode.ofServers)
            """
    )

    @OptionGroup var options: SocketOptions

    var survival: SurvivalOptions? { options.survival }

    func run() async throws { try await options.serve(.handoff) }
}
