import ArgumentParser

/// What happens if the process that serves dies.
struct SurvivalOptions: ParsableArguments {
    @Flag(
        help: """
            Start a successor if the process that serves dies, which goes on with its clients. On SIGHUP it is replaced by \
            what the program's file holds then.
            """)
    var supervise = false

    @Flag(
        help: """
            Keep the clients' descriptors in systemd's manager as well, so that they outlive the whole service: it needs \
            FileDescriptorStoreMax and Restart=on-failure.
            """)
    var fdStore = false

    @Option(
        help: ArgumentHelp(
            "Start at most so many successors in one minute; the next death kills the clients. (default: 10)",
            valueName: "n"))
    var maxRestarts: Int?

    func validate() throws {
        guard (0...1000).contains(restartLimit) else {
            throw ValidationError("--max-restarts needs a number from 0 to 1000")
        }
        guard maxRestarts == nil || isOn else {
            throw ValidationError(
                "--max-restarts needs --supervise or --fd-store: without them, nobody starts a successor")
        }
    }

    /// The most successors in one minute.
    var restartLimit: Int { maxRestarts ?? 10 }

    /// Whether a successor may come.
    var isOn: Bool { supervise || fdStore }
}

/// A command that serves clients: it runs in a process of its own, under a ``Guard``.
protocol GuardedCommand: AsyncParsableCommand {
    /// What happens if that process dies; `nil` if its clients can only be killed.
    var survival: SurvivalOptions? { get }
    /// Descriptors that this program was started with, and that the process that serves needs: a variable tells it the number.
    var passedOn: [(variable: String, number: Int32)] { get }
}

extension GuardedCommand {
    var survival: SurvivalOptions? { nil }
    var passedOn: [(variable: String, number: Int32)] { [] }
}
