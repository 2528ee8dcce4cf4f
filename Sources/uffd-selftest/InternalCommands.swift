import ArgumentParser
import CSelftestSupport
import SystemPackage
import UserfaultSelftest

/// The process of one result.
///
/// Also of use by hand, under strace or a debugger: `uffd-selftest run-case minor/shmem`.
struct RunCaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "run-case", shouldDisplay: false)

    @Argument var identity: String
    @Option(name: .long) var channel: Int32?
    @Option(name: .long) var runner: Int32?

    func run() throws {
        try Self.run(identity, channel: channel, runner: runner)
    }

    private static func run(_ identity: String, channel: Int32?, runner: Int32?) throws -> Never {
        if let runner, css_die_with(runner) != 0 { throw ExitCode.failure }
        CaseBody.runAndExit(identity: identity, channel: channel.map(FileDescriptor.init(rawValue:)))
    }

    /// Runs the case if the arguments are those that a runner gives, and answers otherwise.
    ///
    /// A run starts hundreds of these processes, and the parser would take a third of their time.
    static func runIfAskedByRunner(_ arguments: [String]) throws {
        guard arguments.count == 7, arguments[1] == "run-case", arguments[3] == "--channel",
            let channel = Int32(arguments[4]), arguments[5] == "--runner", let runner = Int32(arguments[6])
        else { return }
        try run(arguments[2], channel: channel, runner: runner)
    }
}

/// The process that changes the host's settings for a run and puts them back.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "guard", shouldDisplay: false)

    /// The descriptors of its runner's lock.
    @Option(name: .long) var directory: Int32?
    @Option(name: .long) var file: Int32?

    func run() {
        let lock = RunLock(
            directory: directory.map(FileDescriptor.init(rawValue:)), file: file.map(FileDescriptor.init(rawValue:)))
        GuardianBody.runAndExit(channel: FileDescriptor(rawValue: 3), lock: lock)
    }
}
