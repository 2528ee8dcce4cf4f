import ArgumentParser
import SystemPackage
import UserfaultSelftest

enum TextFormat: String, ExpressibleByArgument, CaseIterable {
    case pretty, json
}

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the cases, their memory types and what they check.")

    @Option(name: .long, help: "Format of the list.")
    var format: TextFormat = .pretty

    func run() throws {
        let output = ReportOutput(.standardOutput)
        CaseList.write(AllCases.cases, asJSON: format == .json, to: output)
        try Standard.finish(output)
    }
}
