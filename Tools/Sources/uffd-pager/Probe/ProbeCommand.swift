import ArgumentParser
import FoundationEssentials
import UserfaultFD

extension ClientKind: ExpressibleByArgument {}

struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Show which clients this host can serve; for anything missing, why and how to fix it.",
        discussion:
            "Exit codes: 0 all clients that were asked for can be served; 64 wrong usage; 69 one of them cannot; 74 output cannot be written."
    )

    @Argument(help: "The clients to look at; by default all.")
    var clients: [ClientKind] = []

    @Flag(help: "Print the answers as JSON.")
    var json = false

    func run() throws {
        let support = KernelSupport.probe()
        let verdicts = (clients.isEmpty ? ClientKind.allCases : clients).map { ClientVerdict($0, on: support) }
        try Standard.write(json ? try Self.json(verdicts) : Self.text(verdicts, on: support))
        guard verdicts.allSatisfy(\.isServed) else { throw ExitCode.unavailable }
    }

    static func json(_ verdicts: [ClientVerdict]) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(verdicts), as: UTF8.self) + "\n"
    }

    static func text(_ verdicts: [ClientVerdict], on support: KernelSupport) -> String {
        var lines = ["Linux \(support.kernelRelease) \(support.machine)"]
        for verdict in verdicts {
            let title = ClientKind(rawValue: verdict.client)?.title ?? verdict.client
            lines.append("  \(verdict.isServed ? "yes" : "no ")  \(title)")
            for lack in verdict.lacks {
                lines.append(
                    "       without \(lack.name)" + (lack.consequence.map { ", \($0)" } ?? " it cannot be served"))
                if let reason = lack.reason { lines.append("         because: \(reason)") }
                if let remedy = lack.remedy { lines.append("         remedy:  \(remedy)") }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
