import CUserfaultFD
import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// The process whose memory it is goes while the source brings a page that one of its threads waits for.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ClientEndTests {
    enum End: String, CaseIterable, Codable {
        case exits, executes, isKilled
    }

    /// In a process of its own, for its descriptors to be counted.
    @Test(.startsThreadsAfterFork, arguments: End.allCases)
    func aClientThatGoesDuringAFillEndsThePagerQuietly(end: End) async {
        await #expect(processExitsWith: .success) { [end] in
            for service in [PagerConfiguration.Service.inline, .workers(2)] {
                // What the language's runtime opens once is open then.
                try Self.goDuringAFill(end, service)
                let before = Footprint().descriptors
                try Self.goDuringAFill(end, service)
                #expect(Footprint().descriptors == before)
            }
        }
    }

    private static func goDuringAFill(_ end: End, _ service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let client = try startTouching(mapping.range, end)
        let gate = Gate()
        let reports = Reports()
        let pager = try Pager(
            try client.receive(), source: GatedSource(gate: gate), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(
                service: service, watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
        try pager.add(mapping.range)
        try pager.start()
        client.go()
        try #require(gate.waitUntilReached())
        switch end {
        case .exits, .executes: client.go()
        case .isKilled: kill(client.pid, SIGKILL)
        }
        // The watchdog learns of it while the source is still busy.
        #expect(reports.waitFor(.ownerGone))
        #expect(throws: PagerError.ownerGone) { try pager.populateAll() }
        gate.open()
        try pager.stop(.poison)
        #expect(throws: PagerError.notRunning) { try pager.populateAll() }
        #expect(reports.all == [.ownerGone])
        #expect(pager.statistics.failures == 0)
        #expect(pager.statistics.pagesCopied == 0)
        #expect(pager.statistics.outstanding == 0)
        if end == .executes {
            #expect(kill(client.pid, 0) == 0)
            kill(client.pid, SIGKILL)
        }
        #expect(client.wait() == (end == .exits ? 0 : -Int(SIGKILL)))
    }

    /// A parent goes on as soon as its fork is read, and may be gone before its child is known.
    @Test(.startsThreadsAfterFork)
    func theChildOfAClientThatForksAndGoesIsServed() throws {
        // The larger the region, the longer a child takes to be known: longer than its parent takes to go.
        let mapping = try Mapping(anonymous: 4 << 30, options: .noReserve)
        let range = mapping.range
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let output = ends[1]
        let client = try Client.fork(serving: range, features: .eventFork) { socket, _ in
            var byte: UInt8 = 0
            guard Glibc.read(socket, &byte, 1) == 1 else { _exit(100) }
            let parent = getpid()
            guard Glibc.fork() == 0 else { _exit(0) }
            alarm(60)
            while getppid() == parent { sched_yield() }
            var isRight: UInt8 = range.loadWord(pageBytes) == NumberedSource.word(pageBytes) ? 1 : 0
            _ = Glibc.write(output, &isRight, 1)
            _exit(0)
        }
        let reports = Reports()
        let pager = try Pager(
            try client.receive(), source: NumberedSource(), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(watchdogInterval: .milliseconds(10), report: { reports.add($0) }))
        try pager.add(range)
        try pager.start()
        client.go()
        #expect(client.wait() == 0)
        var isRight: UInt8 = 0
        let isServed = try poll(ends[0], until: Deadline(after: .seconds(20))) != 0
        #expect(isServed)
        if isServed { #expect(read(ends[0], &isRight, 1) == 1 && isRight == 1) }
        // The child was the last one.
        #expect(reports.waitFor(.ownerGone))
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
    }

    /// What could not be loaded any more was not loaded.
    @Test(.startsThreadsAfterFork, arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func populateSaysThatTheOwnerHasGone(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 200 * pageBytes)
        let client = try Client.start(mapping)
        let gate = Gate()
        let pager = try Pager(
            try client.receive(), source: GatedSource(gate: gate), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(service: service))
        let region = try pager.add(mapping.range)
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        try #require(gate.waitUntilReached())
        kill(client.pid, SIGKILL)
        #expect(client.wait() == -Int(SIGKILL))
        gate.open()
        #expect(populating.value() == .some(.ownerGone))
        try pager.stop(.populate)
    }

    /// A client with a thread that waits for a page, and another that is told when to go.
    private static func startTouching(_ range: AddressRange, _ end: End) throws -> Client {
        try Client.fork(serving: range) { socket, sleep in
            var byte: UInt8 = 0
            var thread: cuffd_thread_t = 0
            guard Glibc.read(socket, &byte, 1) == 1,
                cuffd_thread_create(
                    &thread, "toucher", 0, { $0!.storeBytes(of: 1, as: UInt8.self) },
                    UnsafeMutableRawPointer(bitPattern: range.start)) == 0,
                Glibc.read(socket, &byte, 1) == 1
            else { _exit(100) }
            if end == .executes { execv("/bin/sleep", sleep) }
            _exit(0)
        }
    }
}
