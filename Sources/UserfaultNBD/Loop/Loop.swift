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
        /// Nobody looks into it any more, and why.
        var ending: NBDError?
        /// The thread waits, or is about to: it has to be woken for what comes.
        var isAsleep = false

        var isEmpty: Bool { letters.isEmpty && questions.isEmpty && !isClosing }
    }

    let uri: String
    let configuration: NBDConfiguration
    let counters = Counters()
    /// What the first connection found.
    let opening = Answer<NBDExport>()
    /// The most replies that are read before requests that have come meanwhile are sent.
    private static var repliesAtOnce: Int { 32 }

    private let inbox = Mutex(Inbox())
    /// A thread waits for something in it; written under its lock.
    private let urgency = Atomic<Bool>(false)
    let wake: EventFD

    // The thread's own.
    var connections: [Connection] = []
    var export: NBDExport?
    /// Requests that were in the inbox; its memory is used again.
    private var arrived: [Letter] = []
    /// How often it has looked into the inbox.
    private(set) var round = 0
    var queue = RequestQueue()
    var map = BlockMap(byteCount: 0)
    /// Those that the last wait was for.
    private var awaited: [Connection] = []
    /// Requests that a thread waits for, sent one after the other.
    var demandInARow = 0
    /// Reads that are outstanding.
    var reads: [Read] = []
    let readMemory = ReadMemory()
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
        let ending = putIn { inbox in
            inbox.letters.append(letter)
            if letter.isDemand { urgency.store(true, ordering: .relaxed) }
        }
        if ending != nil { fail(letter) }
    }

    /// Leaves a question to the thread.
    func put(_ question: Question) {
        let ending = putIn { inbox in
            inbox.questions.append(question)
            urgency.store(true, ordering: .relaxed)
        }
        if let ending { question.answer.set(.failure(ending)) }
    }

    /// Ends the thread, and fails what is outstanding.
    ///
    /// Waits for nothing.
    func close() { _ = putIn { $0.isClosing = true } }

    /// - Returns: Why the thread has ended, if it has: nothing was put in.
    private func putIn(_ change: (inout Inbox) -> Void) -> NBDError? {
        let (isAsleep, ending) = inbox.withLock { inbox in
            defer { inbox.isAsleep = false }
            if inbox.ending == nil { change(&inbox) }
            return (inbox.isAsleep, inbox.ending)
        }
        // Awake it looks into the inbox before it sleeps: also if it is the one that has just put something in.
        if isAsleep { wake.signal() }
        return ending
    }

    private static var isClosed: NBDError { NBDError(.connection, message: "the source was closed") }

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
            do throws(NBDError) {
                try receive(&list)
            } catch {
                for connection in connections where connection.isReady {
                    report(.disconnected(connection.number, error))
                }
                return shutDown(error)
            }
        }
        shutDown(Self.isClosed)
    }

    /// - Returns: `false` once the source is closed.
    private func takeInbox() -> Bool {
        let isClosing = inbox.withLock { inbox in
            swap(&arrived, &inbox.letters)
            questions += inbox.questions
            inbox.questions.removeAll()
            urgency.store(false, ordering: .relaxed)
            return inbox.isClosing
        }
        round += 1
        for letter in arrived {
            letter.round = round
            queue.put(letter)
        }
        arrived.removeAll(keepingCapacity: true)
        return !isClosing
    }

    /// - Returns: Whether there is nothing in the inbox, so that the thread may wait.
    private func fallAsleep() -> Bool {
        inbox.withLock { inbox in
            inbox.isAsleep = inbox.isEmpty
            return inbox.isAsleep
        }
    }

    /// Nothing is asked for.
    private var isIdle: Bool { queue.isEmpty && reads.isEmpty && parked.isEmpty && questions.isEmpty }

    /// Waits until there is something to do, and reads what has come.
    ///
    /// As long as there are more replies and no thread waits for what is to be sent, they are read one after the other. The
    /// requests that follow are then sent together, and wake the server once.
    ///
    /// - Throws: ``NBDError`` if waiting is not possible: nobody can be served any more.
    private func receive(_ list: inout PollList) throws(NBDError) {
        var limit = fallAsleep() ? nextMoment : .now
        var count = 0
        while count < Self.repliesAtOnce {
            let read = try advance(&list, until: limit, most: Self.repliesAtOnce - count)
            count += read
            guard read > 0, !isUrgent else { break }
            limit = .now
        }
    }

    /// Whether a thread waits for something in the inbox.
    var isUrgent: Bool { urgency.load(ordering: .relaxed) }

    /// Waits, and reads or writes what each connection can.
    ///
    /// - Returns: How many replies were read, or other steps made.
    private func advance(
        _ list: inout PollList, until limit: MonotonicInstant, most: Int
    ) throws(NBDError) -> Int {
        list.removeAll()
        list.append(wake)
        awaited.removeAll(keepingCapacity: true)
        for connection in connections {
            guard let descriptor = connection.descriptor else { continue }
            let direction = connection.direction
            list.append(descriptor, forReading: direction.wantsToRead, forWriting: direction.wantsToWrite)
            awaited.append(connection)
        }
        do throws(UserfaultError) {
            try list.wait(until: Deadline(at: limit))
        } catch {
            throw NBDError(
                .connection, errno: error.errno,
                message: "the kernel does not let the source wait for its server: is the limit of descriptors too low?")
        }
        inbox.withLock { $0.isAsleep = false }
        if list[0] != 0 { wake.clear() }
        var count = 0
        for index in awaited.indices where list[index + 1] != 0 && awaited[index].isOpen {
            count += advance(awaited[index], list[index + 1], most: most - count)
        }
        return count
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
        inbox.withLock { $0.ending = error }
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
    ///
    /// - Parameter last: Only what was there in this round of the thread.
    func failAll(_ error: NBDError, upTo last: Int = .max) {
        for letter in queue.removeAll(where: { $0.round <= last }) { fail(letter) }
        let waiting = parked
        parked = [:]
        for letter in waiting.values.joined() { fail(letter) }
        let asked = questions
        questions = []
        for question in asked { question.answer.set(.failure(error)) }
    }

    private func letGoOfTheCancelled() {
        _ = queue.removeAll { $0.dropIfCancelled() }
        for read in reads { read.forEachLetter { _ = $0.dropIfCancelled() } }
    }

    func report(_ report: NBDReport) { configuration.report?(report) }
}
#endif
