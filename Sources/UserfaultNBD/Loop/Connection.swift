#if NBD
internal import CNBD
internal import SystemPackage
internal import UserfaultFD

/// One connection to the server: a handle of libnbd, which makes no threads, and waits for nothing but the address of a name.
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
    private var handle: OpaquePointer?
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
    /// - Parameter round: The thread's.
    func connect(to uri: String, _ configuration: NBDConfiguration, in round: Int) throws(NBDError) {
        attempt = round
        hasServed = false
        try Trust(configuration, uri).check()
        guard let handle = unsafe nbd_create() else { throw Self.lastError(.prepare) }
        unsafe self.handle = handle
        var answers: [CInt] = []
        // Nothing is taken for content that has not come, so that it need not be zeros.
        unsafe answers.append(nbd_set_pread_initialize(handle, false))
        unsafe answers.append(nbd_set_uri_allow_local_file(handle, configuration.allowsLocalFiles))
        let tls = configuration.tls
        unsafe answers.append(nbd_set_tls_verify_peer(handle, tls.verifiesServer))
        if let folder = tls.certificates { unsafe answers.append(nbd_set_tls_certificates(handle, folder)) }
        if let file = tls.preSharedKeys { unsafe answers.append(nbd_set_tls_psk_file(handle, file)) }
        if let name = tls.username { unsafe answers.append(nbd_set_tls_username(handle, name)) }
        if configuration.usesExtents {
            unsafe answers.append(nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION))
        }
        guard !answers.contains(-1) else { throw Self.lastError(.configuration) }
        guard unsafe nbd_aio_connect_uri(handle, uri) != -1 else { throw Self.lastError(.connect) }
        state = .connecting(until: Deadline(after: configuration.connectTimeout).instant)
    }

    /// What the server offers, once it is connected.
    func export() throws(NBDError) -> NBDExport {
        let byteCount = unsafe nbd_get_size(handle)
        guard byteCount >= 0 else { throw Self.lastError(.connect) }
        guard byteCount <= NBDExport.mostBytes else {
            throw NBDError(.connect, message: "the export has \(byteCount) bytes; at most 2^62 can be served")
        }
        func blockSize(_ kind: CInt) -> Int { Int(unsafe nbd_get_block_size(handle, kind)) }
        let largest = blockSize(LIBNBD_SIZE_MAXIMUM)
        return NBDExport(
            byteCount: Int(byteCount), minimumBlock: max(1, blockSize(LIBNBD_SIZE_MINIMUM)),
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
        unsafe nbd_close(handle)
        unsafe handle = nil
        state = .waiting(until: .distantFuture)
    }

    // MARK: Waiting

    var descriptor: Int32? {
        guard unsafe handle != nil else { return nil }
        let descriptor = unsafe nbd_aio_get_fd(handle)
        return descriptor >= 0 ? descriptor : nil
    }

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
            guard unsafe nbd_aio_notify_read(handle) != -1 else { throw Self.lastError(operation) }
            lastProgress = now
        } else if direction.wantsToWrite {
            guard unsafe nbd_aio_notify_write(handle) != -1 else { throw Self.lastError(operation) }
        }
        if isGone { throw NBDError(operation, message: "the server closed the connection") }
    }

    /// Whether there is nobody to ask any more: sending may find that out as well as waiting.
    var isGone: Bool { unsafe nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0 }

    /// Whether the handshake is over.
    var isNegotiated: Bool { unsafe nbd_aio_is_ready(handle) == 1 || nbd_aio_is_processing(handle) == 1 }

    // MARK: Asking

    /// Sends a read into memory that stays until the flight has finished.
    func read(_ flight: Flight, into start: UnsafeMutableRawPointer) {
        let user = unsafe begin(flight)
        let chunk = unsafe nbd_chunk_callback(callback: flightGotChunk, user_data: user, free: nil)
        let callback = unsafe nbd_completion_callback(callback: flightCompleted, user_data: user, free: flightReleased)
        let range = flight.range
        let answer = unsafe nbd_aio_pread_structured(
            handle, start, range.count, UInt64(range.lowerBound), chunk, callback, 0)
        if answer == -1 { flight.refuse(Self.lastError(.read)) }
    }

    /// Asks what is in the flight's range.
    func askExtents(_ flight: Flight) {
        let user = unsafe begin(flight)
        let extents = unsafe nbd_extent_callback(callback: flightGotExtents, user_data: user, free: nil)
        let callback = unsafe nbd_completion_callback(callback: flightCompleted, user_data: user, free: flightReleased)
        let range = flight.range
        let answer = unsafe nbd_aio_block_status(
            handle, UInt64(range.count), UInt64(range.lowerBound), extents, callback, 0)
        if answer == -1 { flight.refuse(Self.lastError(.extents)) }
    }

    @unsafe private func begin(_ flight: Flight) -> UnsafeMutableRawPointer {
        if inFlight == 0 { lastProgress = .now }
        inFlight += 1
        return unsafe Unmanaged.passRetained(flight).toOpaque()
    }

    func finish(_ flight: Flight) {
        inFlight -= 1
        if flight.failure == nil {
            hasServed = true
            failures = 0
        }
        // A whole page has at most so much in front of it and behind it.
        lastReplyBytes = flight.cameWhole ? flight.range.count + 64 : nil
        finished.append(flight)
    }

    var hasFinished: Bool { !finished.isEmpty }

    /// What has finished first.
    func takeFinished() -> Flight? { finished.isEmpty ? nil : finished.removeFirst() }

    /// What libnbd says of the call that this thread made last.
    private static func lastError(_ operation: NBDError.Operation) -> NBDError {
        let errno = nbd_get_errno()
        let message = unsafe nbd_get_error().map { unsafe String(cString: $0) } ?? "libnbd does not say why"
        return NBDError(operation, errno: errno == 0 ? nil : Errno(rawValue: errno), message: message)
    }
}
#endif
