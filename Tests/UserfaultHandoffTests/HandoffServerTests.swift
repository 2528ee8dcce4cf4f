import Synchronization
import SystemPackage
import Testing
import UserfaultFD
import UserfaultPager

@testable import UserfaultHandoff

@Suite("A server of handed memory")
struct HandoffServerTests {
    private func json(_ memory: borrowing ClientMemory, offset: Int = 0) -> [UInt8] {
        let range = memory.mapping.range
        return Array("[{\"base_host_virt_addr\":\(range.start),\"size\":\(range.count),\"offset\":\(offset)}]".utf8)
    }

    /// The descriptor, and as many others.
    private func send(
        _ bytes: some Collection<UInt8>, _ descriptors: [FileDescriptor], over connection: borrowing HandoffConnection
    ) throws {
        try connection.send(Array(bytes), descriptors)
    }

    /// What the server sends; nothing if it closes the connection.
    private func receive(_ connection: borrowing HandoffConnection) throws -> [UInt8] {
        guard let part = try connection.receive(upTo: 8192, until: Deadline(after: .seconds(20))) else {
            Issue.record("nothing comes")
            return []
        }
        return part.payload
    }

    private func isClosed(_ connection: borrowing HandoffConnection) throws -> Bool { try receive(connection).isEmpty }

    @Test("serves a client of its own protocol")
    func own() throws {
        let ground = try Ground(.handoff)
        let memory = try ClientMemory(pages: 8)
        let region = try memory.region(offset: 3 * PageSize.base.bytes)
        try HandoffClient.handOver(memory.uffd, regions: [region], at: ground.path)
        #expect(try memory.firstBytes() == [4, 5, 6, 7, 8, 9, 10, 11])
        _ = try ground.wait { $0.pagers.count == 1 }
    }

    @Test("serves Firecracker, whose message comes in pieces and with further descriptors", arguments: 1...3)
    func firecracker(descriptors: Int) throws {
        let ground = try Ground(.firecracker)
        let memory = try ClientMemory(pages: 4)

        let files = try Memfd(count: 4096)
        let numbers =
            [memory.uffd.withUnsafeDescriptor { $0 }]
            + Array(repeating: files.withUnsafeDescriptor { $0 }, count: descriptors - 1)
        let connection = try HandoffConnection(connectingTo: ground.path)
        let message = json(memory)
        try send(message.prefix(20), numbers, over: connection)
        try send(message.dropFirst(20), [], over: connection)
        #expect(try memory.firstBytes() == [1, 2, 3, 4])
        #expect(try ground.wait { $0.pagers.count == 1 }.reports.isEmpty)
    }

    @Test("ends the session of a peer that sends garbage, and no other")
    func garbage() throws {
        let ground = try Ground(.firecracker)
        let memory = try ClientMemory(pages: 2)
        let half = try HandoffConnection(connectingTo: ground.path)
        try send(json(memory).prefix(9), [memory.uffd.withUnsafeDescriptor { $0 }], over: half)
        for bytes in ["x", "[]", "[{}]", "[{\"size\":\"\"}]"] {
            let peer = try HandoffConnection(connectingTo: ground.path)
            try send(bytes.utf8, [], over: peer)
            // The server closes the connection.
            #expect(try isClosed(peer))
        }
        _ = try ground.wait { $0.reports.count == 4 }
        try send(json(memory).dropFirst(9), [], over: half)
        #expect(try memory.firstBytes() == [1, 2])
    }

    @Test("reports a peer without descriptor, one that closes, and one that sends nothing")
    func early() throws {
        let ground = try Ground(.firecracker)
        let memory = try ClientMemory(pages: 2)
        let without = try HandoffConnection(connectingTo: ground.path)
        try send(json(memory), [], over: without)
        #expect(try ground.wait { !$0.reports.isEmpty }.reports == [.noDescriptor])
        do { _ = try HandoffConnection(connectingTo: ground.path) }
        #expect(try ground.wait { $0.reports.count == 2 }.reports.last == .closedEarly)
        let hasty = try Ground(.firecracker, limits: HandoffLimits(handshakeTime: .milliseconds(200)))
        let silent = try HandoffConnection(connectingTo: hasty.path)
        #expect(try hasty.wait { !$0.reports.isEmpty }.reports == [.timedOut])
        #expect(try isClosed(silent))
    }

    @Test("refuses a descriptor that is no userfaultfd, and says so to a client of its own protocol")
    func noUserfaultFD() throws {
        let ground = try Ground(.handoff)
        let memory = try ClientMemory(pages: 2)
        let file = try Memfd(count: 4096)
        let peer = try HandoffConnection(connectingTo: ground.path)
        let content = HandoffMessage.Content(regions: [try memory.region()])
        try send(content.bytes, [file.withUnsafeDescriptor { $0 }], over: peer)
        let answer = try receive(peer)
        #expect(try HandoffReply.read(answer)?.isServed == false)
        _ = try ground.wait { $0.reports.count == 1 }
    }

    @Test("refuses peers that are not allowed")
    func peers() throws {
        let ground = try Ground(.handoff, peers: PeerPolicy(processes: [1]))
        let memory = try ClientMemory(pages: 2)
        let regions = [try memory.region()]
        #expect(throws: HandoffError.self) {
            try HandoffClient.handOver(memory.uffd, regions: regions, at: ground.path, within: .seconds(20))
        }
        let report = try #require(try ground.wait { !$0.reports.isEmpty }.reports.first)
        guard case .refused = report else { throw report }
    }

    @Test("bounds the connections of a user that have not sent their messages: the oldest goes")
    func connectionsOfUser() throws {
        let ground = try Ground(.firecracker, limits: HandoffLimits(connectionsPerUser: 2))
        let first = try HandoffConnection(connectingTo: ground.path)
        let second = try HandoffConnection(connectingTo: ground.path)
        let memory = try ClientMemory(pages: 2)
        let third = try HandoffConnection(connectingTo: ground.path)
        #expect(try isClosed(first))
        #expect(try ground.wait { !$0.reports.isEmpty }.reports == [.tooManyConnections(limit: 2)])
        try send(json(memory), [memory.uffd.withUnsafeDescriptor { $0 }], over: third)
        #expect(try memory.firstBytes() == [1, 2])
        try send("[".utf8, [], over: second)
    }

    @Test("accepts no more connections of a socket than are allowed, until there is room")
    func connectionsOfSocket() throws {
        let ground = try Ground(
            .firecracker, limits: HandoffLimits(connections: 1, handshakeTime: .milliseconds(200)))
        let silent = try HandoffConnection(connectingTo: ground.path)
        let memory = try ClientMemory(pages: 2)
        let next = try HandoffConnection(connectingTo: ground.path)
        try send(json(memory), [memory.uffd.withUnsafeDescriptor { $0 }], over: next)
        #expect(try memory.firstBytes() == [1, 2])
        #expect(try ground.wait { !$0.reports.isEmpty }.reports == [.timedOut])
        #expect(try isClosed(silent))
    }

    @Test("tells a client that waits at a socket that is removed")
    func removal() throws {
        let path = "/tmp/uffd-handoff-removal-\(UInt64.random(in: 0 ... .max))"
        let reports = Box<[HandoffError]>([])
        let server = try HandoffServer { report in reports.value.withLock { $0.append(report.error) } }
        let listening = try server.listen(HandoffListener(path: path), for: .handoff) { $0.refuse("nobody calls this") }
        // The server does not run: nobody accepts.
        let client = try HandoffConnection(connectingTo: path)
        server.remove(listening)
        #expect(try HandoffReply.read(try receive(client))?.isServed == false)
        #expect(reports.value.withLock { $0 } == [.closed])
    }

    @Test("tells a client what could not be served")
    func refusal() throws {
        let ground = try Ground(.handoff)
        let memory = try ClientMemory(pages: 2)
        // Nothing is mapped there.
        let nowhere = try HandedRegion(
            address: 0x10000, byteCount: UInt64(PageSize.base.bytes), offset: 0, pageBytes: UInt64(PageSize.base.bytes))
        do {
            try HandoffClient.handOver(memory.uffd, regions: [nowhere], at: ground.path)
            Issue.record("nowhere is served")
        } catch HandoffError.notServed(let text) {
            #expect(!text.isEmpty)
        }
        _ = try ground.wait { $0.errors.count == 1 }
    }

    @Test("refuses pages that no client has", arguments: [HandoffFormat.firecracker, .handoff], [30, 33])
    func pageSizes(format: HandoffFormat, log2: Int) throws {
        // Many machines have pages of 1 GiB.
        if format == .handoff, log2 == 30 { return }
        let ground = try Ground(format)
        let memory = try ClientMemory(pages: 1)
        let size = UInt64(1) << log2
        let region = try HandedRegion(address: size, byteCount: size, offset: 0, pageBytes: size)
        let uffd = memory.uffd.withUnsafeDescriptor { $0 }
        let connection = try HandoffConnection(connectingTo: ground.path)
        let bytes =
            format == .handoff
            ? HandoffMessage.Content(regions: [region]).bytes
            : Array("[{\"base_host_virt_addr\":\(size),\"size\":\(size),\"offset\":0,\"page_size\":\(size)}]".utf8)
        try send(bytes, [uffd], over: connection)
        let error = try #require(try ground.wait { $0.errors.count == 1 }.errors.first)
        #expect("\(error)".contains("pages of \(size) bytes, which"), "\(error)")
    }

    @Test(
        "leaves the pages of a client that is refused as they were, if no thread can wait for them",
        arguments: [true, false])
    func refusalLeavesPages(isRegistered: Bool) throws {
        let ground = try Ground(.handoff)
        let memory = try ClientMemory(pages: 2)
        if !isRegistered { try memory.uffd.unregister(memory.mapping.range) }
        let page = UInt64(PageSize.base.bytes)
        // Nothing is mapped there, which is found out after the first region was taken on.
        let nowhere = try HandedRegion(address: 0x10000, byteCount: page, offset: 0, pageBytes: page)
        let regions = [try memory.region(), nowhere]
        #expect(throws: HandoffError.self) {
            try HandoffClient.handOver(memory.uffd, regions: regions, at: ground.path)
        }
        _ = try ground.wait { $0.errors.count == 1 }
        // A page that is poisoned cannot be read.
        let file = try FileDescriptor.open("/proc/self/mem", .readOnly)
        var bytes: [UInt8] = [1]
        let start = Int64(memory.mapping.range.start)
        let count = try? bytes.withUnsafeMutableBytes { try file.read(fromAbsoluteOffset: start, into: $0) }
        #expect(count == (isRegistered ? nil : 1))
        if !isRegistered { #expect(bytes == [0]) }
        try file.close()
    }

    @Test("replaces a socket at which nobody listens, and no other file")
    func paths() throws {
        let path = "/tmp/uffd-handoff-path-\(UInt64.random(in: 0 ... .max))"
        do { _ = try HandoffListener(path: path) }
        let listener = try HandoffListener(path: path)
        #expect(throws: HandoffError.self) { _ = try HandoffListener(path: path) }
        listener.removePath()
        let file = try FileDescriptor.open(path, .writeOnly, options: .create, permissions: .ownerReadWrite)
        #expect(throws: HandoffError.self) { _ = try HandoffListener(path: path) }
        try file.close()
        listener.removePath()
        #expect(throws: Errno.self) {
            _ = try FileDescriptor.open(
                path, .writeOnly, options: [.create, .exclusiveCreate], permissions: .ownerReadWrite)
        }
        try #require(unlinkFile(path))
    }

    @Test("does not notice another one that wants its path")
    func unnoticed() throws {
        let path = "/tmp/uffd-handoff-path-\(UInt64.random(in: 0 ... .max))"
        let listener = try HandoffListener(path: path)
        #expect(throws: HandoffError.self) { _ = try HandoffListener(path: path) }
        if let _ = try listener.accept(within: .zero) { Issue.record("the listener got a connection") }
        listener.removePath()
    }

    @Test("leaves another one's path alone")
    func otherPath() throws {
        let path = "/tmp/uffd-handoff-path-\(UInt64.random(in: 0 ... .max))"
        let first = try HandoffListener(path: path)
        try #require(unlinkFile(path))
        let second = try HandoffListener(path: path)
        first.removePath()
        _ = try UnixSocket.connect(to: path)
        second.removePath()
    }

    @Test("lets clients in as soon as there is the path")
    func pathThatIsThere() throws {
        let path = "/tmp/uffd-handoff-there-\(UInt64.random(in: 0 ... .max))"
        let refusals = Atomic<Int>(0)
        let isDone = Atomic<Bool>(false)
        // Who waits for the path tries it all the time.
        let client = try NativeThread("client") {
            while !isDone.load(ordering: .acquiring) {
                do throws(UserfaultError) {
                    _ = try UnixSocket.connect(to: path)
                } catch {
                    if error.errno == .connectionRefused { refusals.add(1, ordering: .relaxed) }
                }
            }
        }
        // All stay open: who has found a path must not be refused because its socket has just gone.
        final class Kept {
            let listener: HandoffListener
            init(_ listener: consuming HandoffListener) { self.listener = listener }
        }
        do {
            var kept: [Kept] = []
            defer {
                isDone.store(true, ordering: .releasing)
                client.join()
                withExtendedLifetime(kept) {}
            }
            for _ in 0..<500 {
                kept.append(Kept(try HandoffListener(path: path)))
                kept.last?.listener.removePath()
            }
        }
        #expect(refusals.load(ordering: .relaxed) == 0)
    }
}
