import ArgumentParser
import Foundation

@main
struct UffdBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-bench",
        abstract: "Compares the library with hand-written C, in one run.",
        discussion: """
            All variants of a scenario do the same work and take turns, so that drift affects every variant equally. \
            Believe the ratios; the times are those of this machine.

            Exit codes: 0 all gated promises hold, 1 a promise is broken, 2 a measurement failed, 3 no promise is \
            broken, but some are undecided because the rounds differ too much, 64 wrong usage.
            """,
        version: "uffd-bench \(Version.text)"
    )

    enum Format: String, CaseIterable, ExpressibleByArgument { case pretty, json, csv }

    @Option(name: .long, help: "Run only scenarios that match this glob. Can be repeated.")
    var scenario: [String] = []

    @Option(
        name: .long,
        help: ArgumentHelp("Number of runs of each variant; by default, as many as time allows.", valueName: "n"))
    var rounds: Int?

    @Option(name: .long, help: "Format of the report.")
    var format: Format = .pretty

    @Option(name: .long, help: ArgumentHelp("Write the report to this file.", valueName: "file"))
    var output: String?

    @Flag(name: .long, help: "Measure less of everything: takes less than three minutes.")
    var quick = false

    @Flag(name: .long, help: "Print the names of the scenarios and exit.")
    var list = false

    @Flag(name: .long, help: "Do not fail if a promised ratio is broken.")
    var noGates = false

    static var scenarios: [Scenario] {
        IoctlScenarios.all + FaultScenarios.all + ScaleScenarios.all + ScanScenarios.all + DirtyScenarios.all
            + InThreadScenarios.all + StartupScenarios.all + PagerScenarios.all + ClientScenarios.all
    }

    private var selected: [Scenario] {
        scenario.isEmpty
            ? Self.scenarios : Self.scenarios.filter { one in scenario.contains { fnmatch($0, one.name, 0) == 0 } }
    }

    func validate() throws {
        guard rounds ?? 1 > 0 else { throw ValidationError("--rounds must be greater than 0") }
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
