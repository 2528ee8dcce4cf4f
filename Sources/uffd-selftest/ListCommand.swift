import ArgumentParser
import SystemPackage
import UserfaultSelftest

enum TextFormat: String, ExpressibleByArgument, CaseIterable {
    case pretty, json
}

extension CaseList.Format: ExpressibleByArgument {}

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the results, with what they check.",
        discussion: """
            The format names, the default unless the output is a terminal, prints CASE/TYPE, one result a line. pretty \
            and json tell for each case what it checks, what it covers and its tags; coverage is a page in Markdown.

            Tags are the calls that a result is about (\(KernelCall.allCases.map(\.rawValue).joined(separator: ", "))); \
            since-VERSION, the first kernel that has what it needs; root; changes-host, if the run may change settings, \
            huge pages or swap for it; slow; upstream, if the kernel's own tests have it; quick.

            Exit codes: 0 listed, 64 wrong usage, 74 the list could not be written.
            """
    )

    @OptionGroup var filters: FilterOptions

    @Option(name: .long, help: "Format of the list.")
    var format: CaseList.Format?

    func run() throws {
        let output = ReportOutput(.standardOutput)
        let format = format ?? (output.terminalWidth != nil ? .pretty : .names)
        let selection = try filters.selection()
        try filters.endIfNothingFailed(selection)
        if let note = selection.unknownNote { ReportOutput(.standardError).line("uffd-selftest: \(note)") }
        CaseList.write(selection.results(), as: format, to: output)
        try Standard.finish(output)
    }
}
