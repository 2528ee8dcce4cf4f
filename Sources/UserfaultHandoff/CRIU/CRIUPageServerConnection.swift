internal import Synchronization
internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// A connection to a page server of CRIU, which has the pages of a dump that is still under way.
///
/// Requests go out as soon as they are made, those that a thread waits for before others, and are answered in order. If
/// the server breaks the protocol, goes away or does not answer in time, every request fails, now and later.
final class CRIUPageServerConnection: Sendable {
    private let socket: OwnedDescriptor
    private let layout: CRIUPageServerMessage.Layout
    private let patience: Duration
    private let stopped: EventFD
    private let state = Mutex(State())
    private let ended = Mutex(false)

    private struct State {
        /// Asked, in the order of the answers.
        var sent: [Pending] = []
        /// To be asked when fewer are outstanding: those that threads wait for, and others.
        var awaited: [Pending] = []
        var ahead: [Pending] = []
        var failure: CRIUServerError?
        /// When the server was last heard of, or had nothing to do.
        var lastProgress = MonotonicInstant(nanoseconds: 0)

        /// Takes out what is to be asked now.
        mutating func next() -> Pending? {
            if sent.count < CRIUPageServerConnection.mostSent, !awaited.isEmpty { return awaited.removeFirst() }
            if sent.count < CRIUPageServerConnection.mostAhead, !ahead.isEmpty { return ahead.removeFirst() }
            return nil
        }
    }

    /// A request under way.
    private final class Pending: Sendable {
        let address: Int
        let count: Int
        let task: Int32
        private let request: Mutex<PageRequest?>

        init(_ request: consuming PageRequest, count: Int, task: Int32) {
            address = request.offset
            self.count = count
            self.task = task
            self.request = Mutex(request)
        }

        func take() -> PageRequest? { request.withLock { $0.take() } }

        func fail() { take()?.fail() }
    }

    /// The most bytes of an answer: it delays what is asked for after it.
    private static let mostBytes = 256 << 10
    /// The most requests for which no thread waits that are outstanding at a time.
    private static let mostAhead = 2
    /// The most requests that are outstanding at a time: so few that they always fit into the socket, so that sending one
    /// does not wait for a server that waits until its answers are read.
    private static let mostSent = 64

    /// - Parameters:
    ///   - place: Where the server listens.
    ///   - limit: How long connecting, and sending a request, may take.
    ///   - patience: How long the server may leave all requests without an answer.
    init(
        _ place: CRIUPageServer, within limit: Duration = .seconds(10), patience: Duration = .seconds(30)
    ) throws(CRIUServerError) {
        do throws(UserfaultError) {
            switch place.place {
            case .tcp(let address, let port):
                socket = try StreamSocket.connect(to: address, port: port, within: limit)
            case .unix(let path):
                socket = try UnixSocket.connect(to: path)
                try UnixSocket.limitSending(over: socket, to: limit)
            }
            stopped = try EventFD()
        } catch {
            throw .connection(error)
        }
        layout = place.layout
        self.patience = patience
    }

    /// Why nothing is answered any more; `nil` as long as it is.
    var failure: CRIUServerError? { state.withLock { $0.failure } }

    /// Asks for pages, which complete the request when they come.
    func ask(for request: consuming PageRequest, count: Int, of task: Int32) {
        let isAwaited = request.priority == .demand
        let pending = Pending(request, count: min(count, Self.mostBytes), task: task)
        let failed = state.withLock { state -> Pending? in
            guard state.failure == nil else { return pending }
            if isAwaited { state.awaited.append(pending) } else { state.ahead.append(pending) }
            return sendNext(&state)
        }
        failed?.fail()
    }

    /// Sends what may be outstanding now.
    ///
    /// - Returns: What could not be sent.
    private func sendNext(_ state: inout State) -> Pending? {
        while let next = state.next() {
            guard send(next, &state) else { return next }
        }
        return nil
    }

    /// Sends a request; in the order of the queue.
    private func send(_ pending: Pending, _ state: inout State) -> Bool {
        let message = CRIUPageServerMessage(
            .get, pages: pending.count / PageSize.base.bytes, address: UInt64(pending.address), task: pending.task)
        do throws(UserfaultError) {
            try send(message)
        } catch {
            state.failure = .connection(error)
            // Whoever receives fails the others.
            stopped.signal()
            return false
        }
        if state.sent.isEmpty { state.lastProgress = .now }
        state.sent.append(pending)
        return true
    }

    private func send(_ message: CRIUPageServerMessage) throws(UserfaultError) {
        let bytes = message.bytes(layout)
        try unsafe DescriptorPassing.send(
            bytes.span.bytes, descriptors: [], over: FileDescriptor(rawValue: socket.rawValue))
    }

    // MARK: Receiving

    /// Receives answers until the connection ends or is stopped: the body of a thread.
    func run() {
        let size = Self.mostBytes
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
        defer { unsafe room.deallocate() }
        do throws(CRIUServerError) {
            while try unsafe receive(into: room) {}
        } catch {
            state.withLock { state in if state.failure == nil { state.failure = error } }
        }
        let left = state.withLock { state in
            if state.failure == nil { state.failure = .closed }
            defer { (state.sent, state.awaited, state.ahead) = ([], [], []) }
            return state.sent + state.awaited + state.ahead
        }
        for pending in left { pending.fail() }
    }

    /// Takes one answer.
    ///
    /// - Returns: Whether there may be another.
    @unsafe
    private func receive(into room: UnsafeMutableRawBufferPointer) throws(CRIUServerError) -> Bool {
        let header = unsafe UnsafeMutableRawBufferPointer(rebasing: room[..<layout.byteCount])
        guard try unsafe fill(header, isStart: true) else { return false }
        let message = CRIUPageServerMessage(unsafe Array(header)[...], layout)
        let first = state.withLock { $0.sent.first }
        guard let pending = first else { throw .protocolViolation("an answer that nobody asked for") }
        let size = PageSize.base.bytes
        guard message.command == CRIUPageServerMessage.Command.add.rawValue else {
            throw .protocolViolation("command \(message.command) in place of pages")
        }
        guard message.pages > 0 else {
            settle()
            pending.fail()
            return true
        }
        guard message.flags.contains(.present), message.address == UInt64(pending.address),
            message.identifier == UInt64(pending.task)
        else { throw .protocolViolation("pages that were not asked for") }
        guard message.pages <= UInt64(pending.count / size) else {
            throw .protocolViolation("more pages than were asked for")
        }
        let content = unsafe UnsafeMutableRawBufferPointer(rebasing: room[..<(Int(message.pages) * size)])
        guard try unsafe fill(content, isStart: false) else { return false }
        settle()
        pending.take()?.complete(unsafe content.bytes)
        return true
    }

    /// The first request is answered: another may go out.
    private func settle() {
        let failed = state.withLock { state -> Pending? in
            state.sent.removeFirst()
            return state.failure == nil ? sendNext(&state) : nil
        }
        failed?.fail()
    }

    /// - Returns: `false` if the connection was stopped, or ended between two answers.
    @unsafe
    private func fill(
        _ room: UnsafeMutableRawBufferPointer, isStart: Bool
    ) throws(CRIUServerError) -> Bool {
        var count = 0
        while true {
            let deadline = deadline
            do throws(UserfaultError) {
                let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: room[count...])
                count += unsafe try StreamSocket.receive(into: rest, from: socket, stop: stopped, until: deadline)
            } catch {
                throw .connection(error)
            }
            if count == room.count {
                state.withLock { $0.lastProgress = .now }
                return true
            }
            guard deadline.hasPassed else { break }
            let isLate = state.withLock { !$0.sent.isEmpty && $0.lastProgress + patience <= .now }
            if isLate { throw .timedOut }
        }
        if isStart && count == 0 { return false }
        throw .closed
    }

    /// When to look whether the server is late: what is sent meanwhile does not wake the thread.
    private var deadline: Deadline {
        let start = state.withLock { $0.sent.isEmpty ? MonotonicInstant.now : $0.lastProgress }
        return Deadline(at: start + patience)
    }

    // MARK: The end

    /// Ends the receiving; what was not answered fails.
    func stop() { stopped.signal() }

    /// Tells the server that all pages are here, so that the dump can end, and waits for its answer.
    ///
    /// After ``run()`` has returned. A server that was not told keeps the task that it dumps.
    func finish(within limit: Duration = .seconds(10)) throws(CRIUServerError) {
        var answer: UInt32 = 0
        let count: Int
        do throws(UserfaultError) {
            try send(CRIUPageServerMessage(.close))
            stopped.clear()
            count = try unsafe withUnsafeMutableBytes(of: &answer) { (room) throws(UserfaultError) in
                unsafe try StreamSocket.receive(into: room, from: socket, stop: stopped, until: Deadline(after: limit))
            }
        } catch {
            throw .connection(error)
        }
        guard count == 4, answer == 0 else { throw .notConfirmed }
    }
}
