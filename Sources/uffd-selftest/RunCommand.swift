import ArgumentParser
import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultSelftest

extension MemoryType: ExpressibleByArgument {}
extension ReportFormat: ExpressibleByArgument {}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the cases.",
        discussion: """
            A result is a case on a memory type, CASE/TYPE. Filters are globs on that whole name: 'minor/*', '*/shmem'.

            Exit codes: 0 all passed or was lawfully skipped, 1 something failed or the host could not be put back as it \
            was, 4 everything was skipped, 64 wrong usage, 74 the report could not be written.
            """
    )

    @Option(name: .long, help: "Run only results that match this glob. Can be repeated.")
    var filter: [String] = []

    @Option(name: .long, help: "Run only results on this memory type. Can be repeated.")
    var memory: [MemoryType] = []

    @Option(name: .long, help: "Format of the report; by default pretty on a terminal, else tap.")
    var format: ReportFormat?

    @Option(name: .long, help: ArgumentHelp("Write the report to this file.", valueName: "file"))
    var output: String?

    @Option(name: .long, help: ArgumentHelp("The limit of each result, instead of its own.", valueName: "seconds"))
    var timeout: Seconds?

    @Option(name: .customLong("repeat"), help: ArgumentHelp("Number of repetitions.", valueName: "n"))
    var repetitions = 1

    @Flag(name: .long, help: "Treat every skip as a failure.")
    var requireNoSkips = false

    @Flag(name: .long, help: "Do not change huge pages, swap or other settings of the host.")
    var noSystemChanges = false

    func validate() throws {
        try require(repetitions, in: 1...1_000_000, "--repeat")
        let selection = Selection(filters: filter, memory: memory)
        for useless in selection.uselessFilters() {
            let wider = useless + "/*"
            let hint =
                Selection(filters: [wider]).uselessFilters().isEmpty
                ? "'\(wider)' does" : "see uffd-selftest list for what there is"
            throw ValidationError("no result matches '\(useless)', a glob on the whole name CASE/TYPE; \(hint)")
        }
        guard !selection.results().isEmpty else {
            throw ValidationError("no result matches both the filters and the memory types")
        }
    }

    func run() throws {
        var options = Runner.Options()
        options.selection = Selection(filters: filter, memory: memory)
        options.timeout = timeout?.duration
        options.repetitions = repetitions
        options.systemChanges = !noSystemChanges
        options.requireNoSkips = requireNoSkips
        let descriptor = try output.map(Self.create) ?? .standardOutput
        let format = self.format ?? (isatty(descriptor.rawValue) == 1 ? .pretty : .tap)
        let report = ReportOutput(descriptor)
        let ending = try Runner(options: options).run(reporter: format.reporter(to: report))
        let totals = ending.totals
        try Standard.finish(
            report, named: output ?? "standard output",
            verdict: "\(totals.pass) passed, \(totals.fail) failed, \(totals.skip) skipped")
        // A run that was stopped ends the way any stopped program does, so that a script around it stops too.
        if let signal = ending.signal { css_die_of(signal) }
        throw ExitCode(ending.exitCode)
    }

    private static func create(_ path: String) throws -> FileDescriptor {
        do {
            return try FileDescriptor.open(
                FilePath(path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
        } catch {
            throw ValidationError("\(path) cannot be written: \(error)")
        }
    }
}
