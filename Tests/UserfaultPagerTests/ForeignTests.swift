import CUserfaultFD
import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A child process that sends its userfaultfd here and then reads its memory, page by page, when it is told to.
///
/// Its body makes system calls only.
struct Client: ~Copyable {
    let pid: pid_t
    let range: AddressRange
    private let socket: CInt

    /// The child exits with the number of pages that do not hold what ``NumberedSource`` says, or becomes another
    /// program.
    static func start(_ mapping: borrowing Mapping, thenExecutes: Bool = false) throws -> Client {
        let range = mapping.range
        return try fork(serving: range) { socket, sleep in
            var byte: UInt8 = 0
            guard Glibc.read(socket, &byte, 1) == 1 else { _exit(100) }
            var wrong: CInt = 0
            for offset in stride(from: 0, to: range.count, by: 4096)
            where range.loadWord(offset) != NumberedSource.word(offset) { wrong += 1 }
            if thenExecutes, wrong == 0 { execv("/bin/sleep", sleep) }
            _exit(min(wrong, 99))
        }
    }

    /// Makes the child, which sends its userfaultfd.
    ///
    /// - Parameter body: What it does then, with its end of the socket and the arguments of a program that sleeps.
    static func fork(
        serving range: AddressRange, _ body: (CInt, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Never
    ) throws -> Client {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | O_CLOEXEC, 0, &sockets) == 0)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("/bin/sleep"), strdup("600"), nil]
        defer { for argument in arguments { free(argument) } }
        let pid = Glibc.fork()
        if pid == 0 {
            var supported: UInt64 = 0
            var ioctls: UInt64 = 0
            var byte: UInt8 = 1
            var uffd = cuffd_userfaultfd(CUFFD_O_NONBLOCK | CUFFD_O_CLOEXEC | CInt(CUFFD_USER_MODE_ONLY))
            guard uffd >= 0, cuffd_api(uffd, 0, &supported, &ioctls) == 0,
                cuffd_send_descriptors(sockets[1], &byte, 1, &uffd, 1) == 1, Glibc.close(uffd) == 0
            else { _exit(100) }
            body(sockets[1], &arguments)
        }
        _ = Glibc.close(sockets[1])
        return Client(pid: pid, range: range, socket: sockets[0])
    }

    deinit {
        _ = Glibc.close(socket)
    }

    func receive() throws -> UserfaultFD {
        var message = try DescriptorPassing.receive(from: FileDescriptor(rawValue: socket))
        return try message.descriptors.takeUserfaultFD()
    }

    func go() {
        var byte: UInt8 = 1
        _ = Glibc.write(socket, &byte, 1)
    }

    /// Its exit status, or the negative signal that ended it; `nil` where it does not end.
    func wait(seconds: Int32 = 20) -> Int? {
        let process = try? ProcessHandle(id: pid)
        guard (try? process?.waitForExit(timeout: .seconds(seconds))) ?? false else {
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
            return nil
        }
        var status: CInt = 0
        waitpid(pid, &status, 0)
        return status & 0x7f == 0 ? Int((status >> 8) & 0xff) : -Int(status & 0x7f)
    }
}

@Suite(.serialized, .timeLimit(.minutes(1)))
struct ForeignTests {
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func anotherProcessIsServed(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * 4096)
        let client = try Client.start(mapping)
        let owner = try #require(Owner.process(id: client.pid))
        let reports = Reports()
        let pager = try Pager(
            try client.receive(), source: NumberedSource(), owner: owner,
            configuration: PagerConfiguration(
                service: service, watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
        try pager.add(mapping.range)
        try pager.start()
        client.go()
        #expect(client.wait() == 0)
        #expect(reports.waitFor(.ownerGone))
        try pager.stop(.poison)
    }

    @Test
    func aClientKilledDuringAFillEndsThePagerQuietly() throws {
        let mapping = try Mapping(anonymous: 64 * 4096)
        let client = try Client.start(mapping)
        let pid = client.pid
        let owner = try #require(Owner.process(id: pid))
        let reports = Reports()
        let pager = try Pager(
            try client.receive(),
            source: ClosureSource<Never> { offset, pages in
                kill(pid, SIGKILL)
                // Its memory is gone once nobody but us holds on to it: when it can be waited for.
                var info = siginfo_t()
                waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT)
                return NumberedSource().load(offset: offset, into: &pages)
            },
            owner: owner,
            configuration: PagerConfiguration(watchdogInterval: .seconds(5), report: { reports.add($0) }))
        try pager.add(mapping.range)
        try pager.start()
        client.go()
        #expect(client.wait() == -Int(SIGKILL))
        #expect(reports.waitFor(.ownerGone))
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
    }

    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aClientThatExecutesAnotherProgramEndsThePagerQuietly(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * 4096)
        let client = try Client.start(mapping, thenExecutes: true)
        let reports = Reports()
        let pager = try Pager(
            try client.receive(), source: NumberedSource(), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(
                service: service, watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
        try pager.add(mapping.range)
        try pager.start()
        client.go()
        #expect(reports.waitFor(.ownerGone))
        #expect(kill(client.pid, 0) == 0)
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
        kill(client.pid, SIGKILL)
        #expect(client.wait() == -Int(SIGKILL))
    }

    /// Pages are charged to the client, whose limit is the one that is hit.
    @Test(.fitsMemoryGroup, .enabled("the kernel has no memory cgroup for us") { MemoryGroup.isPossible })
    func aClientAtItsMemoryLimitIsKilled() throws {
        let (end, _) = try serveAtLimit { _ in true }
        #expect(end == -Int(SIGKILL))
    }

    @Test(
        .fitsMemoryGroup,
        .enabled("only memory cgroups of the first version can refuse in place of killing") {
            MemoryGroup()?.disableKiller() ?? false
        })
    func aPageThatAClientsMemoryLimitRefusesIsPoisoned() throws {
        for _ in 0..<3 {
            let (end, statistics) = try serveAtLimit(seconds: 2) { $0.disableKiller() }
            // The client itself may be who asks for the last page, of a page table: then it waits for memory for ever.
            guard let end else { continue }
            #expect(end == -Int(SIGBUS))
            #expect(statistics.failures > 0)
            return
        }
        try Test.cancel(
            "the kernel asked the client itself for the last page each time: nothing was refused to the pager")
    }

    /// - Returns: How the client ended, and what the pager counted.
    private func serveAtLimit(
        seconds: Int32 = 20, _ prepare: (borrowing MemoryGroup) -> Bool
    ) throws -> (end: Int?, PagerStatistics) {
        guard let group = MemoryGroup(limit: 8 << 20), prepare(group) else { throw Unavailable() }
        let mapping = try Mapping(anonymous: 32 << 20)
        let client = try Client.start(mapping)
        let isAdded = group.add(client.pid)
        #expect(isAdded)
        let reports = Reports()
        let pager = try Pager(
            try client.receive(), source: NumberedSource(), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
        try pager.add(
            mapping.range, options: RegionOptions(failure: FailurePolicy(retries: 1, backOff: .microseconds(100))))
        try pager.start()
        client.go()
        let end = client.wait(seconds: seconds)
        #expect(reports.waitFor(.ownerGone))
        try pager.stop(.poison)
        return (end, pager.statistics)
    }
}
