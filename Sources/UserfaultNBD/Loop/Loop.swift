#if NBD
internal import Synchronization
internal import UserfaultFD
internal import UserfaultPager

/// The source's thread: it has all connections, sends what is asked and completes what has come.
///
/// Other threads only leave requests and questions in the inbox. Everything else belongs to the thread alone.
final class Loop: @unchecked Sendable {
    private struct Inbox {
        var letters: [Letter] = []
        var questions: [Question] = []
        var isClosing = false
    }

    let uri: String
    let configuration: NBDConfiguration
    let counters = Counters()
    /// What the first connection found.
    let opening = Answer<NBDExport>()
    private let inbox = Mutex(Inbox())
    private let wake: EventFD

    // The thread's own.
    var connections: [Connection] = []
    var export: NBDExport?
    var queue = RequestQueue()
    var map = BlockMap(byteCount: 0)
    /// Reads that are outstanding.
    var reads: [ObjectIdentifier: Read] = [:]
    /// Memory for what is outstanding, in bytes.
    var memory = 0
    /// Requests that wait until a window is known, and windows that were asked for.
    var parked: [Int: [Letter]] = [:]
    var questions: [Question] = []

    private init(_ uri: String, _ configuration: NBDConfiguration) throws(NBDError) {
        self.uri = uri
        self.configuration = configuration
        do throws(UserfaultError) {
            wake = try EventFD()
        } catch {
            throw NBDError(.prepare, errno: error.errno, message: "no eventfd")
        }
    }

    /// Starts a thread that ends after ``close()``.
    static func start(_ uri: String, _ configuration: NBDConfiguration) throws(NBDError) -> Loop {
        let loop = try Loop(uri, configuration)
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-nbd") { loop.run() }
        } catch {
            throw NBDError(.prepare, errno: error.errno, message: "no thread")
        }
        return loop
    }

    // MARK: From any thread

    /// Leaves a request to the thread.
    func put(_ request: consuming PageRequest) {
        counters.requests.add(1, ordering: .relaxed)
        let letter = Letter(request)
        putIn { $0.letters.append(letter) }
    }

    /// Leaves a question to the thread.
    func put(_ question: Question) { putIn { $0.questions.append(question) } }

    /// Ends the thread, and fails what is outstanding.
    ///
    /// Waits for nothing.
    func close() { putIn { $0.isClosing = true } }

    private func putIn(_ change: (inout Inbox) -> Void) {
        let wasEmpty = inbox.withLock { inbox in
            defer { change(&inbox) }
            return inbox.letters.isEmpty && inbox.questions.isEmpty
        }
        // Whoever put the first one in has woken the thread, or is about to.
        if wasEmpty { wake.signal() }
    }

    // MARK: The thread

    private func run() {
        connections = [Connection(number: 0)]
        var list = PollList()
        var swept = MonotonicInstant.now
        while takeInbox() {
            let now = MonotonicInstant.now
            attend(at: now)
            if !isIdle, now >= swept + .milliseconds(100) {
                letGoOfTheCancelled()
                swept = now
            }
            answer()
            send()
            guard wait(&list) else { break }
        }
        shutDown(NBDError(.connection, message: "the source was closed"))
    }

    /// - Returns: `false` once the source is closed.
    private func takeInbox() -> Bool {
        let taken = inbox.withLock { inbox in
            defer {
                inbox.letters = []
                inbox.questions = []
            }
            return inbox
        }
        for letter in taken.letters { queue.put(letter) }
        questions += taken.questions
        return !taken.isClosing
    }

    /// Nothing is asked for.
    private var isIdle: Bool { queue.isEmpty && reads.isEmpty && parked.isEmpty }

    private func wait(_ list: inout PollList) -> Bool {
        list.removeAll()
        list.append(wake)
        var open: [Connection] = []
        for connection in connections {
            guard let descriptor = connection.descriptor else { continue }
            list.append(descriptor, forReading: connection.wantsToRead, forWriting: connection.wantsToWrite)
            open.append(connection)
        }
        do throws(UserfaultError) {
            try list.wait(until: Deadline(at: nextMoment))
        } catch {
            return false
        }
        if list[0] != 0 { wake.clear() }
        for (index, connection) in open.enumerated() where list[index + 1] != 0 { advance(connection, list[index + 1]) }
        return true
    }

    /// When there is something to do without a sign from outside.
    private var nextMoment: MonotonicInstant {
        var next = isIdle ? MonotonicInstant.distantFuture : MonotonicInstant.now + .milliseconds(100)
        for connection in connections {
            switch connection.state {
            case .waiting(let until), .connecting(let until): next = min(next, until)
            case .ready where connection.inFlight > 0:
                next = min(next, connection.lastProgress + configuration.responseTimeout)
            case .ready: break
            }
        }
        return next
    }

    private func shutDown(_ error: NBDError) {
        for connection in connections { connection.retire() }
        settle()
        inbox.withLock { $0.isClosing = true }
        _ = takeInbox()
        failAll(error)
        opening.set(.failure(error))
        // The handles are closed, and callbacks have let go of everything.
        connections = []
    }

    // MARK: Letting go

    func fail(_ letter: Letter) {
        guard let request = letter.take() else { return }
        counters.failures.add(1, ordering: .relaxed)
        request.fail()
    }

    /// Fails what has not been sent.
    func failAll(_ error: NBDError) {
        for letter in queue.removeAll() { fail(letter) }
        let waiting = parked
        parked = [:]
        for letter in waiting.values.joined() { fail(letter) }
        let asked = questions
        questions = []
        for question in asked { question.answer.set(.failure(error)) }
    }

    private func letGoOfTheCancelled() {
        _ = queue.removeAll { $0.dropIfCancelled() }
        for letter in reads.values.lazy.flatMap(\.letters) { _ = letter.dropIfCancelled() }
    }

    func report(_ report: NBDReport) { configuration.report?(report) }
}
#endif
