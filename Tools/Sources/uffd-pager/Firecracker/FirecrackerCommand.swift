import ArgumentParser
import UserfaultHandoff

struct FirecrackerCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "firecracker",
        abstract: "Serve the memory of Firecracker virtual machines that are restored from a snapshot.",
        discussion: """
            Give the socket to Firecracker as the backend_path of PUT /snapshot/load, with the backend_type "Uffd". Every \
            machine that connects is served from the same memory file.

            On SIGTERM and SIGINT, the memory that is left is loaded, so that the machines go on by themselves. SIGHUP does the \
            same, unless --supervise or --fd-store is given.

            \(ExitCode.ofServers)
            """
    )

    @OptionGroup var options: SocketOptions

    var survival: SurvivalOptions? { options.survival }

    func run() async throws { try await options.serve(.firecracker) }
}
