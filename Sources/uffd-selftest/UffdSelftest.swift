import ArgumentParser
import CSelftestSupport
import SystemPackage
import UserfaultSelftest

@main
struct UffdSelftest: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-selftest",
        abstract: "Test whether userfaultfd works on this host as it should.",
        discussion: """
            Exit codes: 0 everything passed or was skipped for a lawful reason, 1 something failed, 4 everything was \
            skipped, 64 wrong usage, 71 the limits of this process are too small, 74 the report could not be written.
            """,
        version: """
            uffd-selftest \(Version.text), with \(AllCases.cases.count) cases for userfaultfd through Linux 7.3
            """,
        subcommands: [
            RunCommand.self, ListCommand.self, ProbeCommand.self, StressCommand.self, RunCaseCommand.self,
            GuardCommand.self,
        ],
        defaultSubcommand: RunCommand.self
    )

    static func main() {
        let arguments = (0..<css_argument_count()).map { String(cString: css_argument($0)) }
        do {
            try RunCaseCommand.runIfAskedByRunner(arguments)
        } catch {
            exit(withError: error)
        }
        Standard.prepare()
        let root: any ParsableCommand.Type = CompletedProgram.isAsked(arguments) ? CompletedProgram.self : self
        do {
            var command = try root.parseAsRoot(Array(arguments.dropFirst()))
            try command.run()
        } catch {
            let text = root.fullMessage(for: error)
            guard root.exitCode(for: error) == .success, !text.isEmpty else { root.exit(withError: error) }
            // Help or the version.
            let output = ReportOutput(.standardOutput)
            output.line(text)
            do { try Standard.finish(output) } catch { exit(withError: error) }
        }
    }
}

/// The program as shells complete it: scripts do not know of a default subcommand, so that its options are the program's too.
private struct CompletedProgram: ParsableCommand {
    static let configuration = UffdSelftest.configuration

    static func isAsked(_ arguments: [String]) -> Bool {
        arguments.dropFirst().first?.hasPrefix("--generate-completion-script") == true
    }

    @OptionGroup var options: RunCommand
}
