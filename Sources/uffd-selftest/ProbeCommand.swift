import ArgumentParser
import SystemPackage
import UserfaultFD
import UserfaultSelftest

struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Show what this kernel, this host and this user can do with userfaultfd.",
        discussion: "Exit codes: 0 if userfaultfd is usable at all, 1 if not."
    )

    @Option(name: .long, help: "Format of the answers.")
    var format: TextFormat = .pretty

    func run() throws {
        let support = KernelSupport.probe()
        let output = ReportOutput(.standardOutput)
        ProbeReport.write(support, asJSON: format == .json, to: output)
        try Standard.finish(output)
        throw support.isUsable ? ExitCode.success : ExitCode.failure
    }
}
