import CSelftestSupport
import Glibc
import SystemPackage

/// Runs the selected results, each in a process of its own, and tells a reporter about each.
package struct Runner {
    package struct Options {
        package var selection = Selection()
        /// Replaces the limit that each case has.
        package var timeout: Duration?
        package var repetitions = 1
        /// How many results run at the same time, except for those that change or measure the host.
        package var jobs = 1
        /// Results that have not begun after this time are skipped.
        package var timeBudget: Duration?
        package var stopsAtFailure = false
        /// The seed of an order by chance.
        package var seed: Int?
        package var knownFailures = KnownFailures()
        package var systemChanges = true
        /// Whether cases may break pages of memory that cannot be healed before the next boot.
        package var losesMemory = false
        /// Makes any skip a failure.
        package var requireNoSkips = false

        package init() {}
    }

    /// What stopped a run before all was done.
    package enum Stop: Sendable, CustomStringConvertible {
        case signal(Int32)
        case firstFailure

        package var description: String {
            switch self {
            case .signal(let signal): SignalName.of(signal)
            case .firstFailure: "the first failure"
            }
        }
    }

    /// How a run ended.
    package struct Ending {
        package var totals = Totals()
        package var stop: Stop?
        /// Failures that are known of the kernel, and that the command line has not named.
        var unnamed = 0
        /// How many results were skipped because the time budget was used up.
        package var outOfTime = 0
        /// What the run could not put back on the host.
        package var troubles: [String] = []

        /// 0 when all passed, failed as expected or was lawfully skipped, 4 when all was skipped, 1 when something
        /// failed or the host is not as it was.
        package var exitCode: Int32 {
            totals.fail > 0 || !troubles.isEmpty ? 1 : totals.passed + totals.xfail > 0 ? 0 : 4
        }
    }

    /// How long a quick run waits for another one.
    private static let quickPatience = Duration.seconds(1)

    private let options: Options
    private let host: Host

    package init(options: Options, host: Host = Host()) {
        self.options = options
        self.host = host
    }

    package func run(reporter: any Reporter) throws -> Ending {
        let plan = Plan(
            results: options.selection.results(), repetitions: options.repetitions, seed: options.seed)
        closeInheritedDescriptorsOnExec()
        // Whatever a case leaves behind becomes a child of the runner, and can be found and killed.
        try checked(css_become_subreaper())
        let signals = FileDescriptor(rawValue: try checked(css_signal_descriptor()))
        defer { try? signals.close() }
        let watch = KernelWatch()
        let start = ContinuousClock.now
        var ending = Ending()

        reporter.begin(plan, on: host)
        for note in watch.notes { reporter.note(note) }
        if let note = options.selection.unknownNote { reporter.note(note) }
        if let seed = options.seed { reporter.note("the order is by chance: --shuffle \(seed) repeats it") }
        let conditions = conditions(signals, reporter, &ending)
        var loop = RunLoop(
            plan, options: options, host: host, conditions: conditions, watch: watch, reporter: reporter,
            signals: signals, ending: ending)
        ending = loop.run()
        if ending.unnamed > 0 {
            reporter.note(
                "\(ending.unnamed) of the failures are known bugs of this kernel: with "
                    + "--known-failures \(KnownFailures.builtInName) they do not count")
        }
        if let budget = options.timeBudget, ending.outOfTime > 0 {
            reporter.note(
                "the time budget of \(budget) ended the run: \(ending.outOfTime) of \(plan.count) results did not start"
            )
        }
        for trouble in ending.troubles { reporter.note("not put back: \(trouble)") }
        reporter.end(ending.totals, seconds: (ContinuousClock.now - start).inSeconds, stop: ending.stop)
        return ending
    }

    /// Measures what the processes of the cases will have.
    private func conditions(
        _ signals: FileDescriptor, _ reporter: any Reporter, _ ending: inout Ending
    ) -> Conditions {
        let changes = SystemChanges(
            areAllowed: options.systemChanges, isRoot: host.isRoot, signals: signals,
            until: options.timeBudget.map { ContinuousClock.now + $0 },
            patience: options.selection.isQuick ? Self.quickPatience : RunLock.patience, tell: reporter.note)
        var means = Means.assumed
        var impossible = host.unusable ?? Restrictions.reason
        if impossible == nil {
            switch Measurement.make(signals: signals) {
            case .done(let measured): means = measured
            case .failed(let why): reporter.note(why)
            case .impossible(let why):
                impossible = why
                reporter.note(why)
            case .interrupted(let signal): ending.stop = .signal(signal)
            }
        }
        means = means.shared(among: options.jobs)
        if means.slowness > 1.5 {
            let factor = Int(means.slowness.rounded())
            reporter.note(
                options.timeout == nil
                    ? "this host is slow: every limit is \(factor) times as long"
                    : "this host is slow, \(factor) times slower than usual: --timeout is used as it is")
        }
        return Conditions(
            host: host, means: means, impossible: impossible, changes: changes, losesMemory: options.losesMemory)
    }
}
