#if NBD
internal import Synchronization
internal import UserfaultFD
internal import UserfaultPager

/// The source's thread: it has all connections, sends what is asked and completes what has come.
struct Loop: ~Copyable {
    /// The most replies that are read before requests that have come meanwhile are sent.
    private static var repliesAtOnce: Int { 32 }

    let uri: String
    let configuration: NBDConfiguration
    let mailbox: Mailbox

    var connections: [Connection] = []
    var export: NBDExport?
    /// Requests that were in the mailbox; its memory is used again.
    private var arrived: [Letter] = []
    /// How often it has looked into the mailbox.
    private(set) var round = 0
    var queue = RequestQueue()
    var map = BlockMap(byteCount: 0)
    /// Those that the last wait was for.
    private var awaited: [Connection] = []
    /// Requests that a thread waits for, sent one after the other.
    var demandInARow = 0
    /// Reads that are outstanding.
    var reads: [Read] = []
    var readMemory = ReadMemory()
    /// Memory for what is outstanding, in bytes.
    var memory = 0
    /// Requests that wait until a window is known, and windows that were asked for.
    var parked: [Int: [Letter]] = [:]
    var questions: [Question] = []

    private init(_ uri: String, _ configuration: NBDConfiguration, _ mailbox: Mailbox) {
        self.uri = uri
        self.configuration = configuration
        self.mailbox = mailbox
    }

    /// Starts the thread, which ends when its mailbox is closed.
    static func start(_ uri: String, _ configuration: NBDConfiguration, _ mailbox: Mailbox) throws(NBDError) {
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-nbd") {
                var loop = Loop(uri, configuration, mailbox)
                loop.run()
            }
        } catch {
            throw NBDError(.prepare, errno: error.errno, message: "no thread")
        }
    }

    private static var isClosed: NBDError { NBDError(.connection, message: "the source was closed") }

    private mutating func run() {
        connections = [Connection(number: 0)]
        var list = PollList()
        var swept = MonotonicInstant.now
        while takeMail() {
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
    private mutating func takeMail() -> Bool {
        let isClosing = mailbox.empty(into: &arrived, &questions)
        round += 1
        for letter in arrived {
            letter.round = round
            queue.put(letter)
        }
        arrived.removeAll(keepingCapacity: true)
        return !isClosing
    }

    /// Nothing is asked for.
    private var isIdle: Bool { queue.isEmpty && reads.isEmpty && parked.isEmpty && questions.isEmpty }

    /// Waits until there is something to do, and reads what has come.
    ///
    /// As long as there are more replies and no thread waits for what is to be sent, they are read one after the other. The
    /// requests that follow are then sent together, and wake the server once.
    ///
    /// - Throws: ``NBDError`` if waiting is not possible: nobody can be served any more.
    private mutating func receive(_ list: inout PollList) throws(NBDError) {
        var limit = mailbox.fallAsleep() ? nextMoment : .now
        var count = 0
        while count < Self.repliesAtOnce {
            let read = try advance(&list, until: limit, most: Self.repliesAtOnce - count)
            count += read
            guard read > 0, !mailbox.isUrgent else { break }
            limit = .now
        }
    }

    /// Waits, and reads or writes what each connection can.
    ///
    /// - Returns: How many replies were read, or other steps made.
    private mutating func advance(
        _ list: inout PollList, until limit: MonotonicInstant, most: Int
    ) throws(NBDError) -> Int {
        list.removeAll()
        list.append(mailbox.wake)
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
        mailbox.wakeUp()
        if list[0] != 0 { mailbox.wake.clear() }
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

    private mutating func shutDown(_ error: NBDError) {
        for connection in connections { connection.retire() }
        settle()
        mailbox.end(error)
        _ = takeMail()
        failAll(error)
        mailbox.opening.set(.failure(error))
        // The handles are closed, and callbacks have let go of everything.
        connections = []
    }

    // MARK: Letting go

    func fail(_ letter: Letter) { mailbox.fail(letter) }

    /// Fails what has not been sent.
    ///
    /// - Parameter last: Only what was there in this round of the thread.
    mutating func failAll(_ error: NBDError, upTo last: Int = .max) {
        for letter in queue.removeAll(where: { $0.round <= last }) { fail(letter) }
        let waiting = parked
        parked = [:]
        for letter in waiting.values.joined() { fail(letter) }
        let asked = questions
        questions = []
        for question in asked { question.answer.set(.failure(error)) }
    }

    private mutating func letGoOfTheCancelled() {
        _ = queue.removeAll { $0.dropIfCancelled() }
        for letter in reads.lazy.flatMap(\.letters) { _ = letter.dropIfCancelled() }
    }

    func report(_ report: NBDReport) { configuration.report?(report) }
}
#endif
