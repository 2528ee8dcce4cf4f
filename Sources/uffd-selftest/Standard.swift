import ArgumentParser
import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultSelftest

/// What every command does with the descriptors that it is started with.
enum Standard {
    /// The exit code when the report could not be written: what `sysexits.h` calls EX_IOERR.
    static let unwritable = ExitCode(74)

    /// The exit code when the limits of this process are too small for any report.
    static let unstartable = ExitCode(Int32(css_cannot_start))

    /// Makes a reader that goes away and a file that grows too large errors of the write, and keeps other files off the
    /// standard descriptors.
    ///
    /// The processes of cases start with the default actions of both signals.
    static func prepare() {
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        // A descriptor that cannot be written keeps the place of a standard output that is closed.
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Fails with a message unless all of the report was written.
    ///
    /// - Parameter kept: The file that has what was written.
    static func finish(
        _ output: ReportOutput, named name: String = "standard output", kept: String? = nil, verdict: String? = nil
    ) throws {
        output.finish()
        guard let failure = output.failure else { return }
        let rest = (kept.map { "; what was written is in \($0)" } ?? "") + (verdict.map { "; \($0)" } ?? "")
        ReportOutput(.standardError).line("uffd-selftest: \(name) cannot be written: \(failure)\(rest)")
        throw unwritable
    }
}

/// A number of seconds of which a time can be made.
struct Seconds: ExpressibleByArgument {
    let duration: Duration

    init?(argument: String) {
        // More than a year is a slip.
        guard let seconds = Double(argument), seconds > 0, seconds <= 366 * 86400 else { return nil }
        duration = .microseconds(Int64(max(1, seconds * 1_000_000)))
    }

    var defaultValueDescription: String { "\(duration)" }
}

/// The seed of an order by chance.
///
/// Any word is one to the parser, which would take what is no number for an argument of the command.
struct Seed: ExpressibleByArgument, CustomStringConvertible {
    static let byChance = Seed(description: "by chance", number: .random(in: 1...999_999))

    let description: String
    /// Nil if it is no number from 0.
    let number: Int?

    init(argument: String) {
        self.init(description: argument, number: Int(argument).flatMap { $0 < 0 ? nil : $0 })
    }

    private init(description: String, number: Int?) {
        self.description = description
        self.number = number
    }
}

extension ParsableArguments {
    /// Fails unless a number lies in what an option can work with.
    func require(_ number: Int?, in range: ClosedRange<Int>, _ option: String) throws {
        guard let number, !range.contains(number) else { return }
        throw ValidationError("\(option) needs a number from \(range.lowerBound) to \(range.upperBound)")
    }
}
