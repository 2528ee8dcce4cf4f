internal import Synchronization
internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// A connection to a page server of CRIU, which has the pages of a dump that is still under way.
///
/// Requests go out as soon as they are made, those that a thread waits for before others, and are answered in order. If
/// the server breaks the protocol or goes away, every request fails, now and later.
final class CRIUPageServerConnection: Sendable {
    private let socket: OwnedDescriptor
    private let layout: CRIUPageServerMessage.Layout
    private let stopped: EventFD
    private let state = Mutex(State())
    private let ended = Mutex(false)

    private struct State {
        /// Asked, in the order of the answers.
        var sent: [Pending] = []
        /// To be asked when fewer are outstanding.
        var waiting: [Pending] = []
        var failure: CRIUServerError?
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

    /// - Parameters:
    ///   - place: Where the server listens.
    ///   - limit: How long connecting, and sending a request, may take.
    init(_ place: CRIUPageServer, within limit: Duration = .seconds(10)) throws(CRIUServerError) {
        do throws(UserfaultError) {
            switch place.place {
            case .tcp(let address, let port):
                socket = try StreamSocket.connect(to: address, port: port, within: limit)
            case .unix(let path): socket = try UnixSocket.connect(to: path)
            }
            stopped = try EventFD()
        } catch {
            throw .connection(error)
        }
        layout = place.layout
    }

    /// Why nothing is answered any more; `nil` as long as it is.
    var failure: CRIUServerError? { state.withLock { $0.failure } }

    /// Asks for pages, which complete the request when they come.
    func ask(for request: consuming PageRequest, count: Int, of task: Int32) {
        let isAwaited = request.priority == .demand
        let pending = Pending(request, count: min(count, Self.mostBytes), task: task)
        let fails = state.withLock { state -> Bool in
            guard state.failure == nil else { return true }
            guard isAwaited || state.sent.count < Self.mostAhead else {
                state.waiting.append(pending)
                return false
            }
            return !send(pending, &state)
        }
        if fails { pending.fail() }
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
            defer { (state.sent, state.waiting) = ([], []) }
            return state.sent + state.waiting
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
            guard state.failure == nil, state.sent.count < Self.mostAhead, !state.waiting.isEmpty else { return nil }
            let next = state.waiting.removeFirst()
            return send(next, &state) ? nil : next
        }
        failed?.fail()
    }

    /// - Returns: `false` if the connection was stopped, or ended between two answers.
    @unsafe
    private func fill(
        _ room: UnsafeMutableRawBufferPointer, isStart: Bool
    ) throws(CRIUServerError) -> Bool {
        let count: Int
        do throws(UserfaultError) {
            count = unsafe try StreamSocket.receive(into: room, from: socket, stop: stopped)
        } catch {
            throw .connection(error)
        }
        if count == room.count { return true }
        if isStart && count == 0 { return false }
        throw .closed
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
