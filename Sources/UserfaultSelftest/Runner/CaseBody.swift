import CSelftestSupport
import Glibc
package import SystemPackage
import UserfaultFD

/// The inside of a result's process: runs the body of the case and tells how it ended.
package enum CaseBody {
    /// Runs the result that `identity` names and ends the process.
    ///
    /// - Parameters:
    ///   - identity: The case and memory type, `minor/shmem`.
    ///   - channel: Where messages go; standard output when somebody runs a case by hand.
    package static func runAndExit(identity: String, channel: FileDescriptor?) -> Never {
        // An arena for each thread takes address space that small hosts lack, and fills gaps that cases make.
        css_use_one_arena()
        // Processes that the case loses stay its own, so that the runner can tell whose they are.
        _ = css_become_subreaper()
        let messages = MessageChannel(descriptor: channel ?? .standardOutput)
        if identity == Means.identity || identity == Means.idleIdentity {
            messages.send(CaseMessage.means(identity == Means.identity ? .measured() : .assumed))
            _exit(0)
        }
        guard let result = Selection.result(identity: identity) else {
            messages.send(CaseMessage.failed(reason: "there is no result \(identity)", detail: []))
            _exit(1)
        }
        // The program was started by a name that says nothing; this one shows in ps and in the report of a hang.
        _ = ProcFile.write(String(identity.prefix(15)), to: "/proc/self/comm")
        let context = CaseContext(memory: result.memory) { messages.send(CaseMessage.note($0)) }
        let outcome = outcome(of: result.selftestCase, in: context)
        messages.send(outcome)
        // Threads that still wait for a fault end with the process; nothing is worth waiting for. The runner reads the
        // outcome, while a person who runs a case by hand has the exit code.
        _exit(channel == nil ? outcome.exitCode : 0)
    }

    private static func outcome(of selftestCase: SelftestCase, in context: CaseContext) -> CaseMessage {
        do {
            try selftestCase.body(context)
            return .passed
        } catch let skip as CaseSkip {
            return .skipped(skip.reason, skip.cause)
        } catch let failure as CaseFailure {
            return .failed(
                reason: "\(failure.expected); seen: \(failure.seen)",
                detail: [
                    "breaks: \(selftestCase.summary)", "expected: \(failure.expected)", "seen: \(failure.seen)",
                    "at: \(failure.file):\(failure.line)",
                ] + failure.descriptors + context.evidence())
        } catch {
            if let reason = (error as? UserfaultError).flatMap(Restrictions.filteredCall) {
                return .skipped(reason, .host)
            }
            return .failed(
                reason: "\(error)",
                detail: ["breaks: \(selftestCase.summary)", "unexpected error: \(error)"] + UserfaultInfo.lines()
                    + context.evidence())
        }
    }
}
