package import SystemPackage

/// Tells about a run in one format, as it goes on where the format allows it.
package protocol Reporter: AnyObject {
    func begin(_ planned: [SelectedResult], on host: Host)
    /// Something a person should know that belongs to no result.
    func note(_ line: String)
    func starting(_ result: SelectedResult)
    func finished(_ result: CaseResult)
    func end(_ totals: Totals, seconds: Double, signal: Int32?)
}

package enum ReportFormat: String, CaseIterable, Sendable {
    case pretty, tap, junit, json

    package func reporter(to output: ReportOutput) -> any Reporter {
        switch self {
        case .pretty: PrettyReporter(output: output)
        case .tap: TAPReporter(output: output)
        case .junit: JUnitReporter(output: output)
        case .json: JSONReporter(output: output)
        }
    }
}

/// Where a report goes.
///
/// Each line is written at once; a reader who has gone away is no error of the run.
package struct ReportOutput: Sendable {
    private let descriptor: FileDescriptor

    package init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    package func write(_ text: String) {
        _ = try? descriptor.writeAll(text.utf8)
    }

    package func line(_ text: String) {
        write(text + "\n")
    }

    /// How wide a terminal is that shows the output; nil when it is no terminal.
    package var terminalWidth: Int? { Terminal.width(of: descriptor) }
}
