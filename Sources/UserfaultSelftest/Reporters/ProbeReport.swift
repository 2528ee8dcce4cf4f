package import UserfaultFD

/// What ``KernelSupport`` found, for people and for programs.
package enum ProbeReport {
    package static func write(_ support: KernelSupport, asJSON: Bool, to output: ReportOutput) {
        if asJSON {
            output.json(Document(support))
        } else {
            output.line("userfaultfd on Linux \(support.kernelRelease) \(support.machine)")
            support.checks.forEach { output.line("  \(text(of: $0))") }
        }
    }

    private static func text(of check: KernelSupport.Check) -> String {
        let answer = check.isAvailable ? "yes" : "no "
        let reasons = [check.reason.map { "because: \($0)" }, check.remedy.map { "remedy:  \($0)" }].compactMap(\.self)
        return (["\(answer)  \(check.name.rawValue): \(check.meaning)"] + reasons).joined(separator: "\n         ")
    }

    private struct Document: Encodable {
        let kernel: String
        let machine: String
        let usable: Bool
        let features: [String]
        let checks: [Check]

        init(_ support: KernelSupport) {
            kernel = support.kernelRelease
            machine = support.machine
            usable = support.isUsable
            features = UserfaultFD.Features.names.filter { support.features.contains($0.feature) }.map(\.name)
            checks = support.checks.map(Check.init)
        }
    }

    private struct Check: Encodable {
        let name: String
        let meaning: String
        let available: Bool
        let reason: String?
        let remedy: String?

        init(_ check: KernelSupport.Check) {
            name = check.name.rawValue
            meaning = check.meaning
            available = check.isAvailable
            reason = check.reason
            remedy = check.remedy
        }
    }
}
