import CTestSupport
import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Clients, the process that serves them, and the guardian, which is the test's process.
///
/// Each test is a process of its own: it forks one that is to start threads.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct GuardianTests {
    /// The pager dies while one client waits for a page and another does nothing: neither reads zeros.
    @Test(.startsThreadsAfterFork)
    func theClientsOfAKilledPagerAreKilled() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let first = try Client.start(mapping)
            let second = try Client.start(mapping)
            let server = try Server.start { link in
                let idle = try Server.serve(second, link, ZeroSource())
                let source = ClosureSource<Never> { offset, pages in
                    if offset == 4 * pageBytes { kill(getpid(), SIGKILL) }
                    return NumberedSource().load(offset: offset, into: &pages)
                }
                let served = try Server.serve(first, link, source)
                first.go()
                withExtendedLifetime((idle, served)) { while true { pause() } }
            }
            #expect(try server.guardClients() == 2)
            // They would exit with the number of wrong pages.
            #expect(first.wait() == -Int(SIGKILL))
            #expect(second.wait() == -Int(SIGKILL))
            #expect(server.wait() == -Int(SIGKILL))
        }
    }

    /// The pager stops and its process ends at once, before the guardian has looked.
    @Test(.startsThreadsAfterFork)
    func theClientOfAPagerThatStoppedLivesOn() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let first = try Client.start(mapping)
            let second = try Client.start(mapping)
            let server = try Server.start { link in
                _ = try link.guard(try second.receive(), of: #require(Owner.process(id: second.pid)))
                let (pager, watch) = try Server.serve(first, link, NumberedSource())
                try pager.stop(.populate)
                try link.dismiss(watch)
            }
            #expect(try server.guardClients() == 1)
            #expect(second.wait() == -Int(SIGKILL))
            first.go()
            #expect(first.wait() == 0)
            #expect(server.wait() == 0)
        }
    }

    /// A client that has ended is nobody's to kill.
    @Test(.startsThreadsAfterFork)
    func aClientThatEndsIsForgotten() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: pageBytes)
            let client = try Client.start(mapping)
            let server = try Server.start { link in
                let owner = try #require(Owner.process(id: client.pid))
                _ = try link.guard(try client.receive(), of: owner)
                // Nothing is registered: the client finds one page of zeros, and ends by itself.
                client.go()
                guard try owner.waitForEnd(within: .seconds(20)) else { _exit(102) }
            }
            #expect(try server.guardClients() == 0)
            #expect(client.wait() == 1)
            #expect(server.wait() == 0)
        }
    }

    /// A client that has ended, or that was dismissed and ends, wakes the guardian no more.
    @Test
    func aClientThatIsGoneIsNotLookedAtAgain() async {
        await #expect(processExitsWith: .success) {
            var sockets: [CInt] = [-1, -1]
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
            let ends = sockets.map { FileDescriptor(rawValue: $0) }
            let server = cts_fork_waiting()
            let pager = try #require(Owner.process(id: server))
            let guardian = Toucher {
                do { return try Guardian(of: pager, over: ends[0]).stand() } catch { return -1 }
            }
            let link = GuardianLink(over: ends[1])
            for isDismissed in [true, false] {
                let client = cts_fork_waiting()
                let owner = try #require(Owner.process(id: client))
                let uffd = try UserfaultFD()
                guard wait(until: { Footprint.sleepingThreads(named: "toucher") == 1 }) else { exit(2) }
                let before = Footprint().descriptors
                let watch = try link.guard(uffd, of: owner)
                if isDismissed {
                    try link.dismiss(watch)
                    guard wait(until: { Footprint().descriptors == before }) else { exit(3) }
                }
                guard cts_kill(client) == -SIGKILL else { exit(4) }
                guard wait(until: { Footprint().descriptors == before }) else { exit(5) }
                guard wait(until: { Footprint.sleepingThreads(named: "toucher") == 1 }) else { exit(6) }
                withExtendedLifetime(owner) {}
                extendLifetime(uffd)
            }
            guard cts_kill(server) == -SIGKILL, guardian.value() == .some(0) else { exit(7) }
        }
    }

    /// The process that serves is told, and may let the client go.
    @Test(.startsThreadsAfterFork)
    func aGuardianWithoutAFreeDescriptorSaysSo() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: pageBytes)
            let client = try Client.start(mapping)
            let server = try Server.start { link in
                let owner = try #require(Owner.process(id: client.pid))
                let uffd = try client.receive()
                let error = error { () throws(PagerError) in _ = try link.guard(uffd, of: owner) }
                guard error == .notGuarded(.tooManyOpenFiles) else { _exit(103) }
            }
            #expect(try server.guardClients(descriptors: 1) == 0)
            #expect(server.wait() == 0)
            kill(client.pid, SIGKILL)
        }
    }

    @Test
    func aGuardianThatIsGoneIsAnError() throws {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
        let socket = FileDescriptor(rawValue: sockets[0])
        defer { try? socket.close() }
        _ = Glibc.close(sockets[1])
        let link = GuardianLink(over: socket)
        let uffd = try UserfaultFD()
        let other = try #require(Owner.process(id: getppid()))
        #expect(throws: PagerError.notGuarded(.brokenPipe)) { try link.guard(uffd, of: other) }
    }

    @Test
    func aGuardianInThePagersProcessIsRefused() throws {
        let file = try Memfd(name: "no socket", count: 1)
        try file.withUnsafeDescriptor { socket in
            let uffd = try UserfaultFD()
            for error in [
                error { () throws(PagerError) in _ = try Guardian(of: .currentProcess, over: socket) },
                error { () throws(PagerError) in
                    _ = try GuardianLink(over: socket).guard(uffd, of: .currentProcess)
                },
            ] {
                guard case .configuration = error else {
                    Issue.record("\(String(describing: error))")
                    return
                }
            }
        }
    }
}

/// A process that has its clients guarded by this one.
private struct Server: ~Copyable {
    let pid: pid_t
    private let socket: FileDescriptor

    static func start(_ body: (GuardianLink) throws -> Void) throws -> Server {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
        alarm(60)
        let pid = fork()
        if pid == 0 {
            alarm(60)
            do {
                _ = Glibc.close(sockets[0])
                try body(GuardianLink(over: FileDescriptor(rawValue: sockets[1])))
                _exit(0)
            } catch {
                _exit(100)
            }
        }
        _ = Glibc.close(sockets[1])
        return Server(pid: pid, socket: FileDescriptor(rawValue: sockets[0]))
    }

    deinit {
        try? socket.close()
    }

    /// In the server's process: serves a client that is guarded.
    static func serve<Source: PageSource>(
        _ client: borrowing Client, _ link: GuardianLink, _ source: Source
    ) throws -> (Pager<Source>, GuardianLink.Watch) {
        let uffd = try client.receive()
        let owner = try #require(Owner.process(id: client.pid))
        let watch = try link.guard(uffd, of: owner)
        let pager = try Pager(uffd, source: source, owner: owner)
        try pager.add(client.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        return (pager, watch)
    }

    /// - Parameter descriptors: How many a client may come with.
    func guardClients(descriptors: Int? = nil) throws -> Int {
        let guardian = try Guardian(of: try #require(Owner.process(id: pid)), over: socket)
        if let descriptors { leaveDescriptors(descriptors) }
        return guardian.stand()
    }

    /// Its exit status, or the negative signal that ended it.
    func wait() -> Int {
        var status: CInt = 0
        waitpid(pid, &status, 0)
        return status & 0x7f == 0 ? Int((status >> 8) & 0xff) : -Int(status & 0x7f)
    }
}
