import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A client, the process that serves it, and the guardian, which is the test's process.
///
/// Each test is a process of its own: it forks one that is to start threads.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct GuardianTests {
    /// The pager dies while the client waits for a page: the client never reads zeros.
    @Test(.startsThreadsAfterFork)
    func theClientOfAKilledPagerIsKilled() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let client = try Client.start(mapping)
            let server = try Server.start(client) { uffd, owner, _ in
                let source = ClosureSource<Never> { offset, pages in
                    if offset == 4 * pageBytes { kill(getpid(), SIGKILL) }
                    return NumberedSource().load(offset: offset, into: &pages)
                }
                let pager = try Pager(uffd, source: source, owner: owner)
                try pager.add(client.range, options: RegionOptions(readAhead: .none))
                try pager.start()
                client.go()
                while true { pause() }
            }
            #expect(try server.guarded(client) == .ownerKilled)
            // It would exit with the number of wrong pages.
            #expect(client.wait() == -Int(SIGKILL))
            #expect(server.wait() == -Int(SIGKILL))
        }
    }

    /// The pager stops and its process ends at once, before the guardian has looked.
    @Test(.startsThreadsAfterFork)
    func theClientOfAPagerThatStoppedLivesOn() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let client = try Client.start(mapping)
            let server = try Server.start(client) { uffd, owner, socket in
                let pager = try Pager(uffd, source: NumberedSource(), owner: owner)
                try pager.add(client.range)
                try pager.start()
                try pager.stop(.populate)
                try Guardian.dismiss(over: socket)
            }
            var info = siginfo_t()
            waitid(P_PID, id_t(server.pid), &info, WEXITED | WNOWAIT)
            #expect(try server.guarded(client) == .dismissed)
            client.go()
            #expect(client.wait() == 0)
            #expect(server.wait() == 0)
        }
    }

    /// A word that does not come is no dismissal, and a process that lives needs no guardian to act.
    @Test
    func theEndOfTheClientEndsTheWatch() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: pageBytes)
            let client = try Client.start(mapping)
            let server = try Server.start(client) { _, _, socket in
                _ = Glibc.close(socket.rawValue)
                client.go()
                while true { pause() }
            }
            // Nothing is registered: the client finds one page of zeros, and ends by itself.
            #expect(try server.guarded(client) == .ownerEnded)
            #expect(client.wait() == 1)
            kill(server.pid, SIGKILL)
            #expect(server.wait() == -Int(SIGKILL))
        }
    }

    @Test
    func aGuardianInThePagersProcessIsRefused() throws {
        let error = #expect(throws: PagerError.self) {
            _ = try Guardian(of: UserfaultFD(), owner: .currentProcess, pager: .currentProcess)
        }
        guard case .configuration = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}

/// A process that has a client's userfaultfd, of which it has sent a duplicate to this one.
private struct Server: ~Copyable {
    let pid: pid_t
    private let socket: FileDescriptor

    static func start(
        _ client: borrowing Client, _ body: (consuming UserfaultFD, Owner, FileDescriptor) throws -> Void
    ) throws -> Server {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
        alarm(60)
        let pid = fork()
        if pid == 0 {
            alarm(60)
            let socket = FileDescriptor(rawValue: sockets[1])
            do {
                _ = Glibc.close(sockets[0])
                let uffd = try client.receive()
                try uffd.send(over: socket, payload: [UInt8(1)].span.bytes)
                guard let owner = Owner.process(id: client.pid) else { _exit(101) }
                try body(uffd, owner, socket)
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

    func guarded(_ client: borrowing Client) throws -> Guardian.End {
        var message = try DescriptorPassing.receive(from: socket)
        let uffd = try message.descriptors.takeUserfaultFD()
        return try Guardian(
            of: uffd, owner: try #require(Owner.process(id: client.pid)), pager: try #require(Owner.process(id: pid)),
            socket: socket
        ).stand()
    }

    /// Its exit status, or the negative signal that ended it.
    func wait() -> Int {
        var status: CInt = 0
        waitpid(pid, &status, 0)
        return status & 0x7f == 0 ? Int((status >> 8) & 0xff) : -Int(status & 0x7f)
    }
}
