import ArgumentParser
import Foundation

@main
struct UffdBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-bench",
        abstract: "Measures the library against hand-written C, in one run.",
        discussion: """
            Every variant of a scenario does the same work, and they take turns, so that what changes on the machine meets \
            them all. Believe the ratios; the times are this machine's.

            Exit codes: 0 every gated promise holds, 1 one is broken, 2 something could not be measured that should be, \
            3 none is broken and the rounds lie too far apart to tell of all, 64 wrong usage.
            """
    )

    enum Format: String, CaseIterable, ExpressibleByArgument { case pretty, json, csv }

    @Option(name: .long, help: "Only scenarios that match the glob. May be given several times.")
    var scenario: [String] = []

    @Option(
        name: .long,
        help: ArgumentHelp("How often each variant runs; else as often as there is time for.", valueName: "n"))
    var rounds: Int?

    @Option(name: .long, help: "How to report.")
    var format: Format = .pretty

    @Option(name: .long, help: ArgumentHelp("Write the report to a file.", valueName: "file"))
    var output: String?

    @Flag(name: .long, help: "Less of everything: a look in under three minutes.")
    var quick = false

    @Flag(name: .long, help: "Only print the names of the scenarios.")
    var list = false

    @Flag(name: .long, help: "Do not fail for the promised ratios.")
    var noGates = false

    static var scenarios: [Scenario] {
        IoctlScenarios.all + FaultScenarios.all + ScaleScenarios.all + ScanScenarios.all + DirtyScenarios.all
            + StartupScenarios.all
    }

    private var selected: [Scenario] {
        scenario.isEmpty
            ? Self.scenarios : Self.scenarios.filter { one in scenario.contains { fnmatch($0, one.name, 0) == 0 } }
    }

    func validate() throws {
        guard rounds ?? 1 > 0 else { throw ValidationError("--rounds needs a number above 0") }
        guard !selected.isEmpty else {
            throw ValidationError("no scenario matches: see uffd-bench --list")
        }
    }

    func run() throws {
        if list {
            for scenario in selected { print(scenario.name) }
            return
        }
        let pace = rounds.map(Pace.exactly) ?? (quick ? .quick : .full)
        let settings = Settings(pace: pace, isQuick: quick)
        var machine = Machine()
        let isTerminal = isatty(STDERR_FILENO) == 1
        let names = selected.count
        var done = 0
        let measurement = Measurement(settings: settings) { name in
            done += 1
            let line = "[\(done)/\(names)] \(name)"
            FileHandle.standardError.write(Data((isTerminal ? "\r\u{1B}[K\(line)" : "\(line)\n").utf8))
        }
        let results = selected.map { measurement.measure($0) }
        if isTerminal { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
        machine.loadAfter = Machine.load
        let report = Report(machine: machine, quick: quick, scenarios: results)
        try write(report)
        let code = report.exitCode(gates: !noGates)
        if code != 0 { throw ExitCode(code) }
    }

    private func write(_ report: Report) throws {
        let text =
            switch format {
            case .pretty: TableReport(report).text
            case .csv: CSVReport(report).text
            case .json: try JSONReport(report).text
            }
        if let output {
            try text.write(toFile: output, atomically: true, encoding: .utf8)
        } else {
            print(text, terminator: "")
        }
    }
}
