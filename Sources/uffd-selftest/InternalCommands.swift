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
        if let runner, css_die_with(runner) != 0 { throw ExitCode.failure }
        CaseBody.runAndExit(identity: identity, channel: channel.map(FileDescriptor.init(rawValue:)))
    }
}

/// The process that changes the host's settings for a run and puts them back.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "guard", shouldDisplay: false)

    func run() {
        GuardianBody.runAndExit(channel: FileDescriptor(rawValue: 3))
    }
}
