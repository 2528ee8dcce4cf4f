import Synchronization

/// What the body of a case knows about its run, and where it leaves what a reader should know besides the outcome.
package final class CaseContext: Sendable {
    private let memoryType: MemoryType?
    private let note: @Sendable (String) -> Void
    private let evidenceClosures = Mutex<[@Sendable () -> String]>([])

    /// - Parameter note: Takes each line that the body records, at once, so that a hang does not lose it.
    init(memory: MemoryType?, note: @escaping @Sendable (String) -> Void) {
        memoryType = memory
        self.note = note
    }

    /// The memory type of this result.
    ///
    /// A case that declares no memory types has none and must not ask.
    package var memory: MemoryType {
        guard let memoryType else {
            preconditionFailure("this case declares no memory types: list them after `on:` to get one")
        }
        return memoryType
    }

    /// Keeps a line for the result's `detail`, such as which of several lawful answers the kernel gave.
    package func record(_ note: String) {
        self.note(note)
    }

    /// Adds something to print if the case fails: a page's content, pagemap words.
    ///
    /// Not run otherwise.
    package func onFailure(_ evidence: @escaping @Sendable () -> String) {
        evidenceClosures.withLock { $0.append(evidence) }
    }

    /// Ends the case as a skip because the host lacks something, or this user may not use it.
    package func skip(_ reason: String) throws(CaseSkip) -> Never {
        throw CaseSkip(reason)
    }

    /// Ends the case as a skip because the kernel lacks something.
    package func skip(kernel reason: String) throws(CaseSkip) -> Never {
        throw CaseSkip(kernel: reason)
    }

    /// Ends this try of the case as a skip; the next one may go on.
    package func skip(thisTime reason: String) throws(CaseSkip) -> Never {
        throw CaseSkip(thisTime: reason)
    }

    /// Runs what `onFailure` kept, the latest first, because that is nearest to the failure.
    func evidence() -> [String] {
        evidenceClosures.withLock { $0 }.reversed().map { $0() }
    }
}
