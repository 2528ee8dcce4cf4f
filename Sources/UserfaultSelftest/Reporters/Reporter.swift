import SystemPackage

/// Tells about a run in one format, as it goes on where the format allows it.
package protocol Reporter: AnyObject {
    var output: ReportOutput { get }
    func begin(_ plan: Plan, on host: Host)
    /// Something a person should know that belongs to no result.
    func note(_ line: String)
    func starting(_ result: SelectedResult)
    func finished(_ result: CaseResult)
    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?)
}

package enum ReportFormat: String, CaseIterable, Sendable {
    case pretty, tap, ktap, junit, json, kcidb

    /// - Parameter kcidb: What the format of that name needs besides.
    package func reporter(to output: ReportOutput, kcidb: KCIDBIdentity) -> any Reporter {
        switch self {
        case .pretty: PrettyReporter(output: output)
        case .tap: TAPReporter(output: output)
        case .junit: JUnitReporter(output: output)
        case .json: JSONReporter(output: output)
        case .ktap: KTAPReporter(output: output)
        case .kcidb: KCIDBReporter(output: output, origin: kcidb.origin, build: kcidb.build)
        }
    }
}

extension Reporter {
    /// Whether somebody may still read the report.
    var isHeard: Bool { output.failure != .brokenPipe }
}
