import Glibc
import Synchronization
package import SystemPackage

/// Tells about a run in one format, as it goes on where the format allows it.
package protocol Reporter: AnyObject {
    var output: ReportOutput { get }
    func begin(_ plan: Plan, on host: Host)
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

extension Reporter {
    /// Whether somebody may still read the report.
    var isHeard: Bool { output.failure != .brokenPipe }
}

/// Where a report goes.
///
/// Each line is written at once. After the first that cannot be, nothing more is written, and ``failure`` tells why.
package final class ReportOutput: Sendable {
    private let descriptor: FileDescriptor
    private let firstFailure = Mutex<Errno?>(nil)

    package init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    package func write(_ text: String) {
        firstFailure.withLock { failure in
            guard failure == nil else { return }
            do {
                _ = try descriptor.writeAll(text.utf8)
            } catch {
                failure = error as? Errno ?? .ioError
            }
        }
    }

    package func line(_ text: String) {
        write(text + "\n")
    }

    /// Why the report is not complete; nil while it is.
    package var failure: Errno? { firstFailure.withLock { $0 } }

    /// Ends the report: what a file system has put off writing may fail only now.
    package func finish() {
        firstFailure.withLock { failure in
            // Terminals, pipes and the like have nothing to put off, and answer with other errors.
            guard failure == nil, fsync(descriptor.rawValue) != 0 else { return }
            let error = Errno(rawValue: errno)
            if [.ioError, .noSpace, .diskQuotaExceeded].contains(error) { failure = error }
        }
    }

    /// How wide a terminal is that shows the output; nil when it is no terminal.
    package var terminalWidth: Int? { Terminal.width(of: descriptor) }
}
