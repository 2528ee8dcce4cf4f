import ArgumentParser
import UserfaultHandoff

struct FirecrackerCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "firecracker",
        abstract: "Serve the memory of Firecracker virtual machines that are restored from a snapshot.",
        discussion: """
            Give the socket to Firecracker as the backend_path of PUT /snapshot/load, with the backend_type "Uffd". Every \
            machine that connects is served from the same memory file.

            On SIGTERM, SIGINT and SIGHUP, the memory that is left is loaded, so that the machines go on by themselves.

            Exit codes: 0 all machines were served to their end, 1 one of them was not, 66 a file cannot be read, 70 the \
            server died and its clients were killed, 71 the kernel refused, 73 the socket cannot be made.
            """
    )

    @OptionGroup var options: SocketOptions

    var survival: SurvivalOptions? { options.survival }

    func run() async throws { try await options.serve(.firecracker) }
}
