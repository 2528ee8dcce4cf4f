#if NBD
internal import Synchronization
internal import UserfaultFD
internal import UserfaultPager

/// What other threads leave for the source's thread, and what it tells them.
final class Mailbox: Sendable {
    private struct Content {
        var letters: [Letter] = []
        var questions: [Question] = []
        var isClosing = false
        /// Nobody looks into it any more, and why.
        var ending: NBDError?
        /// The thread waits, or is about to: it has to be woken for what comes.
        var isAsleep = false

        var isEmpty: Bool { letters.isEmpty && questions.isEmpty && !isClosing }
    }

    let counters = Counters()
    /// What the first connection found.
    let opening = Answer<NBDExport>()
    let wake: EventFD

    private let content = Mutex(Content())
    /// A thread waits for something in it; written under its lock.
    private let urgency = Atomic<Bool>(false)

    init() throws(NBDError) {
        do throws(UserfaultError) {
            wake = try EventFD()
        } catch {
            throw NBDError(.prepare, errno: error.errno, message: "no eventfd")
        }
    }

    // MARK: From any thread

    /// Leaves a request to the thread.
    func put(_ request: consuming PageRequest) {
        counters.requests.add(1, ordering: .relaxed)
        let letter = Letter(request)
        let ending = putIn { content in
            content.letters.append(letter)
            if letter.isDemand { urgency.store(true, ordering: .relaxed) }
        }
        if ending != nil { fail(letter) }
    }

    /// Leaves a question to the thread.
    func put(_ question: Question) {
        let ending = putIn { content in
            content.questions.append(question)
            urgency.store(true, ordering: .relaxed)
        }
        if let ending { question.answer.set(.failure(ending)) }
    }

    /// Ends the thread, and fails what is outstanding.
    ///
    /// Waits for nothing.
    func close() { _ = putIn { $0.isClosing = true } }

    /// - Returns: Why the thread has ended, if it has: nothing was put in.
    private func putIn(_ change: (inout Content) -> Void) -> NBDError? {
        let (isAsleep, ending) = content.withLock { content in
            defer { content.isAsleep = false }
            if content.ending == nil { change(&content) }
            return (content.isAsleep, content.ending)
        }
        // Awake it looks into the mailbox before it sleeps: also if it is the one that has just put something in.
        if isAsleep { wake.signal() }
        return ending
    }

    func fail(_ letter: Letter) {
        guard let request = letter.take() else { return }
        counters.failures.add(1, ordering: .relaxed)
        request.fail()
    }

    // MARK: From the source's thread

    /// Empties it.
    ///
    /// - Parameter letters: Empty; what it has room for is used again.
    /// - Returns: Whether the source is closed.
    func empty(into letters: inout [Letter], _ questions: inout [Question]) -> Bool {
        content.withLock { content in
            swap(&letters, &content.letters)
            questions += content.questions
            content.questions.removeAll()
            urgency.store(false, ordering: .relaxed)
            return content.isClosing
        }
    }

    /// - Returns: Whether there is nothing in it, so that the thread may wait.
    func fallAsleep() -> Bool {
        content.withLock { content in
            content.isAsleep = content.isEmpty
            return content.isAsleep
        }
    }

    func wakeUp() { content.withLock { $0.isAsleep = false } }

    /// Nobody looks into it any more.
    func end(_ error: NBDError) { content.withLock { $0.ending = error } }

    /// Whether a thread waits for something in it.
    var isUrgent: Bool { urgency.load(ordering: .relaxed) }
}
#endif
