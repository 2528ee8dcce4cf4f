import ArgumentParser
import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultSelftest

extension ReportFormat: ExpressibleByArgument {}

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the cases.",
        discussion: """
            A result is a case on a memory type, CASE/TYPE. Filters are globs on that whole name, \
            'minor/*', '*/shmem', or what a report calls a result.

            Exit codes: 0 everything passed, was skipped for a lawful reason, or failed as expected; 1 something failed, \
            or the host's settings could not be restored; 4 everything was skipped; 64 wrong usage; 71 the limits of this \
            process are too small for a run; 74 the report could not be written.
            """
    )

    @OptionGroup var filters: FilterOptions

    @Option(name: .long, help: "Format of the report; by default pretty on a terminal, tap elsewhere.")
    var format: ReportFormat?

    @Option(
        name: .long, help: ArgumentHelp("Write the report to this file; - is standard output.", valueName: "file"),
        completion: .file())
    var output: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Time limit of each result, in place of its own.", valueName: "seconds"))
    var timeout: Seconds?

    @Option(
        name: .customLong("repeat"), parsing: .unconditional,
        help: ArgumentHelp("Number of repetitions.", valueName: "n"))
    var repetitions = 1

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Number of results that run at the same time. Those that change or measure the host run alone.",
            valueName: "n"))
    var jobs = 1

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp(
            "Skip results that have not started after this time, and wait no longer for another run.",
            valueName: "seconds"))
    var timeBudget: Seconds?

    @Flag(name: .long, help: "Stop at the first failure.")
    var failFast = false

    @Option(
        name: .long, defaultAsFlag: Seed.byChance,
        help: ArgumentHelp(
            "Run in random order. The report names the seed, which repeats the order.", valueName: "seed"))
    var shuffle: Seed?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Failures in this JSON file are expected and do not count; builtin: those that kernels are known for.",
            valueName: "file"),
        completion: .file())
    var knownFailures: String?

    @Flag(name: .long, help: "Treat every skip as a failure.")
    var requireNoSkips = false

    @Flag(name: .long, help: "Do not change huge pages, swap or other settings of the host.")
    var noSystemChanges = false

    @Flag(
        name: .long,
        help: "Run cases that break a few pages of memory even if the kernel cannot heal them before the next boot.")
    var loseMemory = false

    @Option(name: .long, help: ArgumentHelp("Name of the CI system in the format kcidb.", valueName: "name"))
    var kcidbOrigin = KCIDBIdentity().origin

    @Option(
        name: .long,
        help: ArgumentHelp("Id of the kernel's build in the format kcidb, if KCIDB knows the build.", valueName: "id"))
    var kcidbBuild: String?

    func validate() throws {
        try require(repetitions, in: 1...1_000_000, "--repeat")
        try require(jobs, in: 1...1024, "--jobs")
        if let shuffle, shuffle.number == nil {
            throw ValidationError("--shuffle needs a number from 0 to \(Int.max), not '\(shuffle)'")
        }
        guard output != "" else { throw ValidationError("--output needs the name of a file, or - for standard output") }
        guard !loseMemory || !noSystemChanges else {
            throw ValidationError("--lose-memory changes the system: leave out --no-system-changes")
        }
        guard kcidbOrigin.wholeMatch(of: /[a-z0-9_]+/) != nil else {
            throw ValidationError("--kcidb-origin needs lower-case letters, digits and underscores")
        }
        guard kcidbBuild?.wholeMatch(of: /[a-z0-9_]+:.*/) != nil || kcidbBuild == nil else {
            throw ValidationError("--kcidb-build needs an id, ORIGIN:NAME")
        }
    }

    func run() throws {
        var options = Runner.Options()
        options.selection = try filters.selection()
        try filters.endIfNothingFailed(options.selection)
        options.timeout = timeout?.duration
        options.repetitions = repetitions
        options.jobs = jobs
        options.timeBudget = timeBudget?.duration
        options.stopsAtFailure = failFast
        options.seed = shuffle?.number
        options.systemChanges = !noSystemChanges
        options.losesMemory = loseMemory
        options.requireNoSkips = requireNoSkips
        if let knownFailures { options.knownFailures = try usable { try KnownFailures(file: knownFailures) } }
        let file = output == "-" ? nil : try output.map(Self.create)
        let report = file?.output ?? ReportOutput(.standardOutput)
        let format = self.format ?? (report.terminalWidth != nil ? .pretty : .tap)
        var kcidb = KCIDBIdentity()
        kcidb.origin = kcidbOrigin
        kcidb.build = kcidbBuild
        let ending: Runner.Ending
        do {
            ending = try Self.run(Runner(options: options), format.reporter(to: report, kcidb: kcidb))
        } catch {
            file?.discard()
            throw error
        }
        let totals = ending.totals
        file?.finish()
        try Standard.finish(
            report, named: file != nil ? output! : "standard output", kept: file?.kept,
            verdict: "\(totals.passed) passed, \(totals.fail) failed, \(totals.skip) skipped")
        // A run that was stopped ends the way any stopped program does, so that a script around it stops too.
        if case .signal(let signal) = ending.stop { css_die_of(signal) }
        throw ExitCode(ending.exitCode)
    }

    private static func run(_ runner: Runner, _ reporter: any Reporter) throws -> Runner.Ending {
        do {
            return try runner.run(reporter: reporter)
        } catch let error as Errno {
            let remedy = error == .tooManyOpenFiles ? ": raise the limit of open files (ulimit -n)" : ""
            ReportOutput(.standardError).line("uffd-selftest: a run cannot start: \(error)\(remedy)")
            throw Standard.unstartable
        }
    }

    private static func create(_ path: String) throws -> ReportFile {
        do {
            return try ReportFile(path)
        } catch {
            ReportOutput(.standardError).line("uffd-selftest: \(path) cannot be written: \(error)")
            throw Standard.unwritable
        }
    }
}
