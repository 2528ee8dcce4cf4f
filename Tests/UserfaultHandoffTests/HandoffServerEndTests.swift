import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD
import UserfaultPager

@testable import UserfaultHandoff

@Suite("The end of a server of handed memory")
struct HandoffServerEndTests {
    /// Hands memory over, and waits for the handler.
    private func hand(
        _ memory: borrowing ClientMemory, over connection: borrowing HandoffConnection, until isCalled: () -> Bool
    ) throws {
        let text = "[{\"base_host_virt_addr\":\(memory.mapping.range.start),\"size\":4096,\"offset\":0}]"
        try connection.send(Array(text.utf8), [memory.uffd.withUnsafeDescriptor { $0 }])
        let deadline = Deadline(after: .seconds(20))
        while !isCalled() {
            try #require(!deadline.hasPassed, "the handler is not called")
            NativeThread.yield()
        }
    }

    /// A server whose handler is on its way as long as its socket's path is there.
    private func endsAfterItsHandler(_ end: (HandoffServer, HandoffServer.Listening) -> Void) throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let server = try HandoffServer()
        let (entered, returns) = (Box(false), Box(false))
        let listening = try server.listen(HandoffListener(path: path), for: .firecracker) { _ in
            entered.value.withLock { $0 = true }
            while access(path, F_OK) == 0 { NativeThread.yield() }
            // Time enough for who does not wait.
            for _ in 0..<1000 { NativeThread.yield() }
            returns.value.withLock { $0 = true }
        }
        try server.start()
        let memory = try ClientMemory(pages: 1)
        let connection = try HandoffConnection(connectingTo: path)
        try hand(memory, over: connection) { entered.value.withLock { $0 } }
        end(server, listening)
        #expect(returns.value.withLock { $0 })
        server.close()
    }

    @Test("tells of a client's arrival, until somebody keeps its descriptors")
    func arrival() throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let arrivals = Arrivals()
        let server = try HandoffServer(arrivals: arrivals)
        let states = Box<[Arrivals.State]>([])
        try server.listen(HandoffListener(path: path), for: .firecracker) { memory in
            states.value.withLock { $0.append(arrivals.state) }
            memory.client.endArrival()
            states.value.withLock { $0.append(arrivals.state) }
        }
        try server.start()
        let memory = try ClientMemory(pages: 1)
        let connection = try HandoffConnection(connectingTo: path)
        try hand(memory, over: connection) { states.value.withLock { $0.count == 2 } }
        server.close()
        #expect(states.value.withLock { $0 } == [.read, .ended])
    }

    @Test("gives up a socket that somebody else has shut, and serves the others")
    func shut() throws {
        let reports = Box<[HandoffError]>([])
        let server = try HandoffServer { report in reports.value.withLock { $0.append(report.error) } }
        let paths = (0..<2).map { _ in "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))" }
        let first = try HandoffListener(path: paths[0])
        let copy = HandoffListener(adopting: try OwnedDescriptor(duplicating: first.socket.rawValue).release())
        try server.listen(first, for: .handoff) { $0.refuse("nobody calls this") }
        try server.listen(HandoffListener(path: paths[1]), for: .handoff) { $0.refuse("nobody calls this") }
        try server.start()
        try UnixSocket.refuseMore(at: copy.socket)
        let isShut = copy.isShut
        #expect(isShut)
        let deadline = Deadline(after: .seconds(20))
        // The first is ready all the time.
        for count in 2...20 {
            _ = try HandoffConnection(connectingTo: paths[1])
            while reports.value.withLock({ $0.count < count }) {
                try #require(!deadline.hasPassed, "no report comes: \(reports.value.withLock { $0 })")
                NativeThread.yield()
            }
        }
        #expect(reports.value.withLock { $0.count { $0 != .closedEarly } } == 1)
        server.close()
    }

    @Test("sends clients away that wait at a socket which a server has left")
    func left() throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let reports = Box<[HandoffError]>([])
        let server = try HandoffServer { report in reports.value.withLock { $0.append(report.error) } }
        let socket = try HandoffListener(path: path)
        let client = try HandoffConnection(connectingTo: path)
        try UnixSocket.refuseMore(at: socket.socket)
        server.sendAway(from: socket, for: .handoff)
        let answer = try client.receive(upTo: 8192, until: Deadline(after: .seconds(20)))?.payload ?? []
        #expect(try HandoffReply.read(answer)?.isServed == false)
        #expect(reports.value.withLock { $0 } == [.closed])
        _ = unlink(path)
    }

    @Test("removes the path of a socket at which it cannot wait")
    func useless() throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let server = try HandoffServer()
        let socket = try HandoffListener(path: path)
        defer { extendLifetime(socket) }
        // No epoll takes this one.
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(throws: HandoffError.self) {
            try server.listen(HandoffListener(adopting: null.rawValue, path: path), for: .handoff) { _ in }
        }
        #expect(access(path, F_OK) != 0)
        server.close()
    }

    @Test("waits for handlers when it is closed")
    func close() throws { try endsAfterItsHandler { server, _ in server.close() } }

    @Test("waits for the handlers of a socket that is removed")
    func remove() throws { try endsAfterItsHandler { server, listening in server.remove(listening) } }
}

/// What is heard of one client.
private final class Arrivals: HandoffArrivals {
    enum State {
        case none, connected, read, ended
    }

    private let current = Box(State.none)

    var state: State { current.value.withLock { $0 } }

    private func change(from before: [State], to after: State) {
        current.value.withLock { current in
            #expect(before.contains(current))
            current = after
        }
    }

    func hasConnected(_ id: UInt64, over socket: FileDescriptor) { change(from: [.none], to: .connected) }
    func willRead(_ id: UInt64, from process: FileDescriptor) { change(from: [.connected], to: .read) }
    func hasEnded(_ id: UInt64) { change(from: [.read, .ended], to: .ended) }
}
