import ArgumentParser

@main
struct UffdSelftest: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-selftest",
        abstract: "Tests whether userfaultfd works on this host as it should.",
        discussion: """
            Exit codes: 0 all passed or was lawfully skipped, 1 something failed, 4 everything was skipped, \
            64 wrong usage.
            """,
        subcommands: [
            RunCommand.self, ListCommand.self, ProbeCommand.self, StressCommand.self, RunCaseCommand.self,
            GuardCommand.self,
        ],
        defaultSubcommand: RunCommand.self
    )

    static func main() {
        do {
            try RunCaseCommand.runIfAskedByRunner(CommandLine.arguments)
        } catch {
            exit(withError: error)
        }
        main(nil)
    }
}
