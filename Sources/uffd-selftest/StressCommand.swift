import ArgumentParser
import SystemPackage
import UserfaultSelftest

extension StressMode: ExpressibleByArgument {}

struct StressCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stress",
        abstract: "Use memory from many threads at once, and compare every byte.",
        discussion: """
            The areas change places BOUNCES times; each bounce has a mode of its own, and 16 have them all. Then minor \
            faults, events and truncation are put under stress for some seconds each, where TYPE has them.

            Exit codes: 0 all was right, 1 something was wrong, 4 it cannot be had here, 64 wrong usage, 74 the \
            report could not be written.
            """
    )

    @Argument(help: "Memory type: \(MemoryType.allCases.map(\.rawValue).joined(separator: ", ")).")
    var type: MemoryType

    @Argument(help: ArgumentHelp("Size of an area, in MiB.", valueName: "mib"))
    var mebibytes: Int

    @Argument(help: "Number of times the areas change places.")
    var bounces: Int

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("How long each of the other modes runs.", valueName: "seconds"))
    var seconds = Seconds(argument: "2")!

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Threads of each kind; by default one per processor.", valueName: "n"))
    var threads: Int?

    @Option(name: .long, help: "Run only this mode: bounce, minor, events, truncate. Can be repeated.")
    var mode: [StressMode] = []

    @Flag(name: .long, help: "Do not change the pool of huge pages.")
    var noSystemChanges = false

    func validate() throws {
        try require(mebibytes, in: 1...1 << 20, "MIB")
        try require(bounces, in: 1...1_000_000, "BOUNCES")
        try require(threads, in: 1...4096, "--threads")
        let modes = mode.isEmpty ? StressMode.allCases : mode
        guard modes.contains(where: { $0.suits(type) }) else {
            throw ValidationError("\(type.rawValue) has none of these modes")
        }
    }

    func run() throws {
        let options = StressOptions(
            memory: type, mebibytes: mebibytes, bounces: bounces, duration: seconds.duration,
            threads: threads, modes: mode.isEmpty ? StressMode.allCases : mode)
        let output = ReportOutput(.standardOutput)
        let code = StressReport(options, changesSystem: !noSystemChanges, output: output).run()
        try Standard.finish(output)
        throw ExitCode(code)
    }
}
