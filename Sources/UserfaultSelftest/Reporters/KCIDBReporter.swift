import FoundationEssentials
import SystemPackage

/// Who reports to KCIDB, and on which build of the kernel.
package struct KCIDBIdentity: Sendable {
    /// The name of the system that reports.
    package var origin = "local"
    /// The id of a build that KCIDB knows; nil for one that the report brings along.
    package var build: String?

    package init() {}
}

/// The JSON of KCIDB, the database of kernel test results, version 5.3.
final class KCIDBReporter: Reporter {
    let output: ReportOutput
    private let origin: String
    private let build: String?
    private var stream: JSONStream?
    private var buildID = ""
    private var environment = Environment(comment: "", misc: [:])
    /// What tells this run's tests from those of all others.
    private let run = ProcFile.line("/proc/sys/kernel/random/uuid") ?? "\(Date().timeIntervalSince1970)"
    private var number = 0

    private struct Head: Encodable {
        struct Version: Encodable {
            let major = 5
            let minor = 3
        }
        let version = Version()
        let checkouts: [Checkout]
        let builds: [Build]
    }

    private struct Checkout: Encodable {
        let id: String
        let origin: String
        let comment: String
    }

    private struct Build: Encodable {
        enum CodingKeys: String, CodingKey {
            case checkout = "checkout_id"
            case id, origin, comment, architecture, misc
        }
        let checkout: String
        let id: String
        let origin: String
        let comment: String
        let architecture: String
        let misc: [String: String]
    }

    private struct Environment: Encodable {
        var comment: String
        var misc: [String: String]
    }

    private struct Test: Encodable {
        enum CodingKeys: String, CodingKey {
            case build = "build_id"
            case id, origin, environment, path, comment, status, duration
            case start = "start_time"
            case log = "log_excerpt"
        }
        let build: String
        let id: String
        let origin: String
        let environment: Environment
        let path: String
        let comment: String
        let status: String
        let start: String
        let duration: Double
        let log: String?
    }

    private struct Nothing: Encodable {}

    init(output: ReportOutput, origin: String, build: String?) {
        self.output = output
        self.origin = origin
        self.build = build
    }

    func begin(_ plan: Plan, on host: Host) {
        let facts = Dictionary(uniqueKeysWithValues: host.facts.map { ($0.name, $0.value) })
        environment.comment = "Linux \(host.kernel) \(host.machine)"
        environment.misc = facts.filter { $0.key != "config" }
        environment.misc["uffd-selftest"] = Version.text
        buildID = build ?? "\(origin):\(host.kernel) \(facts["kernel_version"] ?? "")"
        let own = build == nil
        let checkout = "\(origin):\(host.kernel)"
        let builds = [
            Build(
                checkout: checkout, id: buildID, origin: origin, comment: facts["kernel_version"] ?? "",
                architecture: host.machine, misc: facts.filter { $0.key == "config" })
        ]
        let head = Head(
            checkouts: own ? [Checkout(id: checkout, origin: origin, comment: "Linux \(host.kernel)")] : [],
            builds: own ? builds : [])
        stream = JSONStream(output, head: head, array: "tests", tail: Nothing())
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        ReportOutput(.standardError).line("uffd-selftest: \(line)")
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        number += 1
        let selected = result.selected
        let path = ["uffd-selftest", selected.selftestCase.name] + (selected.memory.map { [$0.rawValue] } ?? [])
        let status =
            switch result.outcome {
            case .pass: "PASS"
            case .skip: "SKIP"
            case .fail, .xfail: "FAIL"
            }
        let log = result.detail.joined(separator: "\n")
        let test = Test(
            build: buildID, id: "\(origin):uffd-selftest-\(run)-\(number)", origin: origin, environment: environment,
            path: path.map(Self.word).joined(separator: "."),
            comment: result.reason.map { "\(selected.title): \($0)" } ?? selected.title, status: status,
            start: Date(timeIntervalSinceNow: -result.seconds).formatted(.iso8601), duration: result.seconds,
            log: log.isEmpty ? nil : String(log.prefix(Self.longestLog)))
        stream?.append(test, tail: Nothing())
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        if let stop { note("stopped by \(stop) before all was done") }
        stream?.end(tail: Nothing())
    }

    /// The most characters of a log that KCIDB takes.
    private static let longestLog = 16384

    /// What a part of a path may hold: letters, digits and a few others.
    private static func word(_ text: String) -> String {
        let words = text.split { !($0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_")) }
        return words.joined(separator: "_")
    }
}
