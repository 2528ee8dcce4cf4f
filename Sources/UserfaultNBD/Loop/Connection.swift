#if NBD
internal import CNBD
internal import SystemPackage
internal import UserfaultFD

/// One connection to the server: a handle of libnbd, which makes no threads, and waits for nothing once it is dialed.
///
/// Only the source's thread uses it. libnbd calls back while one of these methods runs: what has come is then in
/// ``takeFinished()``.
@safe
final class Connection {
    enum State {
        /// There is none; the next attempt is due at a moment.
        case waiting(until: MonotonicInstant)
        /// It is being made.
        case connecting(until: MonotonicInstant)
        case ready
    }

    let number: Int
    private(set) var state = State.waiting(until: MonotonicInstant(nanoseconds: 0))
    /// Attempts in a row that came to nothing: a server that greets and answers no request is none.
    private(set) var failures = 0
    /// In which round of the thread the last attempt began.
    private(set) var attempt = 0
    /// Why the last one has.
    var lastFailure: NBDError?
    /// Requests that are outstanding.
    private(set) var inFlight = 0
    /// When the server was last heard of, or had nothing to do.
    private(set) var lastProgress = MonotonicInstant(nanoseconds: 0)
    /// What the reply that was read last took of the socket, at most; `nil` if that is not known.
    private(set) var lastReplyBytes: Int?
    /// A request was answered.
    private var hasServed = false
    /// A request has failed: with the connection, perhaps.
    private var hasFailure = false
    /// One was, since it was looked at last: bytes alone are no progress.
    private var hasAnswered = false
    /// The server says what it must not say, and goes on.
    private var distrust: NBDError?
    private var handle: OpaquePointer?
    /// The beginning of a connection, which may take longer than an attempt: then the next attempt goes on with it.
    private var dial: Dial?
    private var finished: [Flight] = []

    init(number: Int) {
        self.number = number
    }

    deinit { unsafe nbd_close(handle) }

    var isReady: Bool { if case .ready = state { true } else { false } }
    var isConnecting: Bool { if case .connecting = state { true } else { false } }

    // MARK: Connecting

    /// Begins to connect.
    ///
    /// - Parameters:
    ///   - round: The thread's.
    ///   - wake: Called, on another thread, when there is something to take.
    func connect(
        to uri: String, _ configuration: NBDConfiguration, in round: Int, wake: @escaping @Sendable () -> Void
    ) throws(NBDError) {
        attempt = round
        hasServed = false
        hasFailure = false
        distrust = nil
        state = .connecting(until: Deadline(after: configuration.connectTimeout).instant)
        // A failure that came meanwhile was that of the last attempt.
        _ = takeDialed()
        if dial == nil, !isOpen { dial = try Dial.start(uri, configuration, wake) }
    }

    /// Takes what came of a connection that was begun, if that is known now.
    ///
    /// - Returns: Why it was not made.
    func takeDialed() -> NBDError? {
        guard let result = dial?.take() else { return nil }
        dial = nil
        switch result {
        case .success(let dialed): unsafe handle = dialed.take()
        case .failure(let error): return error
        }
        return nil
    }

    /// Whether the server's address is still looked up.
    var isDialing: Bool { dial != nil }

    /// What the server offers, once it is connected.
    func export() throws(NBDError) -> NBDExport {
        let byteCount = unsafe nbd_get_size(handle)
        guard byteCount >= 0 else { throw NBDError.last(.connect) }
        guard byteCount <= NBDExport.mostBytes else {
            throw NBDError(.connect, message: "the export has \(byteCount) bytes; at most 2^62 can be served")
        }
        func blockSize(_ kind: CInt) -> Int { Int(unsafe nbd_get_block_size(handle, kind)) }
        let largest = blockSize(LIBNBD_SIZE_MAXIMUM)
        let smallest = max(1, blockSize(LIBNBD_SIZE_MINIMUM))
        // No client may ask for a part of a block, nor for what follows the end.
        guard Int(byteCount) % smallest == 0 else {
            throw NBDError(
                .connect,
                message: "the export has \(byteCount) bytes and is read in blocks of \(smallest): its last "
                    + "\(Int(byteCount) % smallest) bytes cannot be read")
        }
        return NBDExport(
            byteCount: Int(byteCount), minimumBlock: smallest,
            preferredBlock: max(1, blockSize(LIBNBD_SIZE_PREFERRED)),
            // Every server must take 32 MiB if it says nothing.
            maximumBlock: largest > 0 ? min(largest, 32 << 20) : 32 << 20,
            allowsManyConnections: unsafe nbd_can_multi_conn(handle) == 1,
            hasExtents: unsafe nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1)
    }

    func becomeReady() {
        state = .ready
        lastFailure = nil
        lastProgress = .now
    }

    /// Lets the connection go: everything that is outstanding on it has failed.
    func close(_ backOff: (_ failures: Int) -> Duration) {
        unsafe nbd_close(handle)
        unsafe handle = nil
        if !hasServed { failures += 1 }
        state = .waiting(until: Deadline(after: failures == 0 ? .zero : backOff(failures)).instant)
    }

    /// No attempt is made.
    func retire() {
        dial = nil
        unsafe nbd_close(handle)
        unsafe handle = nil
        state = .waiting(until: .distantFuture)
    }

    // MARK: Waiting

    /// Whether there is something to wait for, and to ask.
    var isOpen: Bool { unsafe handle != nil }

    var descriptor: Int32? {
        guard isOpen else { return nil }
        let descriptor = unsafe nbd_aio_get_fd(handle)
        return descriptor >= 0 ? descriptor : nil
    }

    /// Has the connection be given up after the call of libnbd that has brought this.
    func doubt(_ message: String) { distrust = distrust ?? NBDError(.connection, message: message) }

    /// What libnbd waits for.
    struct Direction {
        fileprivate let bits: UInt32

        var wantsToRead: Bool { bits & UInt32(LIBNBD_AIO_DIRECTION_READ) != 0 }
        var wantsToWrite: Bool { bits & UInt32(LIBNBD_AIO_DIRECTION_WRITE) != 0 }
    }

    var direction: Direction { Direction(bits: unsafe nbd_aio_get_direction(handle)) }

    /// How many bytes have come and were not read; 0 if that cannot be known, because they are encrypted.
    var bytesWaiting: Int {
        guard isReady, unsafe nbd_get_tls_negotiated(handle) == 0, let descriptor else { return 0 }
        return bytesReadable(descriptor)
    }

    /// Reads or writes what can be.
    ///
    /// - Parameter now: When it was told that it can.
    /// - Throws: ``NBDError`` if the connection is gone.
    func advance(_ ready: Int16, at now: MonotonicInstant) throws(NBDError) {
        let operation: NBDError.Operation = isReady ? .connection : .connect
        lastReplyBytes = nil
        let direction = direction
        if direction.wantsToRead, !ready.isOnlyWritable {
            // One call takes one reply. Another that finds none would leave libnbd in the middle of one, where it sends
            // nothing.
            guard unsafe nbd_aio_notify_read(handle) != -1 else { throw NBDError.last(operation) }
            if hasAnswered {
                lastProgress = now
                hasAnswered = false
            }
        } else if direction.wantsToWrite {
            guard unsafe nbd_aio_notify_write(handle) != -1 else { throw NBDError.last(operation) }
        }
        if let distrust { throw distrust }
        if isGone { throw NBDError(operation, message: "the server closed the connection") }
    }

    /// Whether there is nobody to ask any more: sending may find that out as well as waiting.
    var isGone: Bool { unsafe nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0 }

    /// Whether requests can be sent.
    ///
    /// Without one that failed, it was looked at after the last reply.
    var canBeAsked: Bool { isReady && !(hasFailure && isGone) }

    /// Whether the handshake is over.
    var isNegotiated: Bool { unsafe nbd_aio_is_ready(handle) == 1 || nbd_aio_is_processing(handle) == 1 }

    // MARK: Asking

    /// Sends a read into memory that stays until the flight has finished.
    ///
    /// - Returns: `false` if libnbd has refused it: it has finished.
    func read(_ flight: Flight, into start: UnsafeMutableRawPointer) -> Bool {
        let user = unsafe begin(flight)
        let chunk = unsafe nbd_chunk_callback(callback: flightGotChunk, user_data: user, free: nil)
        let callback = unsafe nbd_completion_callback(callback: flightCompleted, user_data: user, free: flightReleased)
        let range = flight.range
        let answer = unsafe nbd_aio_pread_structured(
            handle, start, range.count, UInt64(range.lowerBound), chunk, callback, 0)
        if answer == -1 { flight.refuse(NBDError.last(.read)) }
        return answer != -1
    }

    /// Asks what is in the flight's range.
    func askExtents(_ flight: Flight) {
        let user = unsafe begin(flight)
        let extents = unsafe nbd_extent_callback(callback: flightGotExtents, user_data: user, free: nil)
        let callback = unsafe nbd_completion_callback(callback: flightCompleted, user_data: user, free: flightReleased)
        let range = flight.range
        let answer = unsafe nbd_aio_block_status(
            handle, UInt64(range.count), UInt64(range.lowerBound), extents, callback, 0)
        if answer == -1 { flight.refuse(NBDError.last(.extents)) }
    }

    @unsafe private func begin(_ flight: Flight) -> UnsafeMutableRawPointer {
        if inFlight == 0 { lastProgress = .now }
        inFlight += 1
        return unsafe Unmanaged.passRetained(flight).toOpaque()
    }

    func finish(_ flight: Flight) {
        inFlight -= 1
        hasAnswered = true
        if flight.failure == nil {
            hasServed = true
            failures = 0
        } else {
            hasFailure = true
        }
        // A whole page has at most so much in front of it and behind it.
        lastReplyBytes = flight.cameWhole ? flight.range.count + 64 : nil
        finished.append(flight)
    }

    /// What has finished first.
    func takeFinished() -> Flight? { finished.count > 1 ? finished.removeFirst() : finished.popLast() }
}

extension NBDError {
    /// What libnbd says of the call that this thread made last.
    static func last(_ operation: Operation) -> NBDError {
        let errno = nbd_get_errno()
        let message = unsafe nbd_get_error().map { unsafe String(cString: $0) } ?? "libnbd does not say why"
        return NBDError(operation, errno: errno == 0 ? nil : Errno(rawValue: errno), message: message)
    }
}
#endif
