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

    @Test("removes the path of a socket at which it cannot wait, unless somebody else may have the socket")
    func useless() throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let server = try HandoffServer()
        // No epoll takes this one.
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        let other: OwnedDescriptor
        do {
            let socket = try HandoffListener(path: path)
            other = try OwnedDescriptor(duplicating: socket.socket.rawValue)
            #expect(throws: HandoffError.self) {
                try server.listen(
                    HandoffListener(adopting: null.duplicate().rawValue, path: path), for: .handoff
                ) { _ in }
            }
            #expect(access(path, F_OK) == 0)
            let isShut = socket.isShut
            #expect(!isShut)
            #expect(dup2(null.rawValue, socket.socket.rawValue) >= 0)
            do {
                try server.listen(socket, for: .handoff) { _ in }
                Issue.record("it waits at /dev/null")
            } catch {}
        }
        #expect(access(path, F_OK) != 0)
        try other.close()
        try null.close()
        server.close()
    }

    @Test("kills a client that waits to be accepted although no descriptor is free", arguments: [0, 1])
    func withoutDescriptors(free: Int) async {
        await #expect(processExitsWith: .success) { [free] in
            _exit(try Self.isKilledWithoutDescriptors(free: free) ? 0 : 1)
        }
    }

    /// Sends a client away in a process that may open so many files, and no more.
    private static func isKilledWithoutDescriptors(free: Int) throws -> Bool {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let reports = Box<[Bool?]>([])
        let server = try HandoffServer { report in reports.value.withLock { $0.append(report.wasKilled) } }
        let socket = try HandoffListener(path: path)
        let client = Glibc.fork()
        if client == 0 {
            do {
                let memory = try ClientMemory(pages: 1)
                let connection = try HandoffConnection(connectingTo: path)
                try connection.send([0x5b], [memory.uffd.withUnsafeDescriptor { $0 }])
                _ = unlink(path)
                while true { pause() }
            } catch { _exit(1) }
        }
        let deadline = Deadline(after: .seconds(20))
        while access(path, F_OK) == 0 {
            try #require(!deadline.hasPassed, "the client does not connect")
            NativeThread.yield()
        }
        var limit = rlimit(rlim_cur: 64, rlim_max: 64)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        var held: [Int32] = []
        while case let number = dup(0), number >= 0 { held.append(number) }
        for number in held.suffix(free) { Glibc.close(number) }
        server.sendAway(from: socket, for: .firecracker)
        Glibc.kill(client, SIGKILL)
        return reports.value.withLock { $0 } == [true]
    }

    @Test("removes what servers have left beside a path that were killed")
    func leftovers() throws {
        let path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let folder = "/tmp/."
        let name = path.dropFirst("/tmp/".count)
        let left = "\(folder)\(name).0123abcd"
        let stay = ["\(folder)\(name).0123abcg", "\(folder)\(name).0123abcd0", "\(folder)\(name)-other.0123abcd"]
        // Nobody has these.
        for name in stay + [left] { _ = try UnixSocket.listen(at: name) }
        let bound = "\(folder)\(name).00000000"
        let living = try HandoffListener(path: bound)
        let file = "\(folder)\(name).0000000f"
        try FileDescriptor.open(file, .writeOnly, options: .create, permissions: .ownerReadWrite).close()
        let listener = try HandoffListener(path: path)
        #expect(access(left, F_OK) != 0)
        for name in stay + [bound, file] { #expect(access(name, F_OK) == 0, "\(name)") }
        for name in stay + [file] { #expect(unlinkFile(name)) }
        living.removePath()
        listener.removePath()
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
