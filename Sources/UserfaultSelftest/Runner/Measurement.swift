import SystemPackage

/// How the processes of the cases will fare here, found out by processes of the same sort before the first case.
enum Measurement {
    case done(Means)
    /// Measuring did not work, although processes can be started: the cases have to show what is wrong.
    case failed(why: String)
    /// No process can be started or come up, and so no case can run.
    case impossible(why: String)
    case interrupted(signal: Int32)

    static func make(signals: FileDescriptor) -> Measurement {
        let first = run(Means.identity, signals)
        guard case .failed(let why) = first else { return first }
        // Is it what is measured that fails, or any process?
        return switch run(Means.idleIdentity, signals) {
        case .done: .failed(why: "what this host offers could not be measured: \(why)")
        case .failed(let why):
            .impossible(why: "a result's process does not come up: \(why); raise the limits of memory")
        case let other: other
        }
    }

    private static func run(_ identity: String, _ signals: FileDescriptor) -> Measurement {
        let process: CaseProcess
        do {
            process = try CaseProcess(identity: identity, limit: .seconds(30))
        } catch {
            return .impossible(why: "a result's process cannot be started: \(error); \(remedy(error))")
        }
        switch CaseProcess.waitForOne(of: [process], signals: signals) {
        case .signal(let signal):
            process.abandon()
            return .interrupted(signal: signal)
        case .ended(_, let cause):
            let end = process.ending(cause, sparing: [])
            for case .means(let means) in end.messages { return .done(means) }
            return switch end.cause {
            case .signaled(let signal): .failed(why: "it was killed by \(SignalName.of(signal))")
            case .exited(let code): .failed(why: "it ended with exit code \(code)")
            case .hung(let report): .failed(why: (["it did not end"] + report).joined(separator: "\n"))
            }
        }
    }

    private static func remedy(_ error: any Error) -> String {
        switch error as? Errno {
        case .tooManyOpenFiles: "raise the limit of descriptors (ulimit -n)"
        case .resourceTemporarilyUnavailable:
            "raise the limit of processes (ulimit -u, or pids.max of the control group)"
        case .noMemory: "raise the limit of address space (ulimit -v), or free memory"
        default: "see that this program's own file can be read and executed"
        }
    }
}
