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
            skipped, 64 wrong usage, 74 the report could not be written.
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
        do {
            var command = try parseAsRoot(Array(arguments.dropFirst()))
            try command.run()
        } catch {
            let text = fullMessage(for: error)
            guard exitCode(for: error) == .success, !text.isEmpty else { exit(withError: error) }
            // Help or the version.
            let output = ReportOutput(.standardOutput)
            output.line(text)
            do { try Standard.finish(output) } catch { exit(withError: error) }
        }
    }
}
