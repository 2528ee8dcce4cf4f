import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct ForeignTests {
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func anotherProcessIsServed(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
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
        let mapping = try Mapping(anonymous: 64 * pageBytes)
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
        let mapping = try Mapping(anonymous: 64 * pageBytes)
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

    /// A client that holds the descriptor too makes it one that blocks, over and over, and is killed.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aClientThatHasReadingBlockHoldsUpNoStop(service: PagerConfiguration.Service) throws {
        for _ in 0..<5 {
            let mapping = try Mapping(anonymous: 64 * pageBytes)
            let client = try Client.start(mapping)
            let uffd = try client.receive()
            let second = Shared(try uffd.duplicate())
            let pager = try Pager(
                uffd, source: NumberedSource(), owner: try #require(Owner.process(id: client.pid)),
                configuration: PagerConfiguration(service: service, handlers: 2))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let isOver = Shared(Atomic<Bool>(false))
            let clearing = Toucher {
                while !isOver.value.load(ordering: .relaxed) { try? second.value.setNonBlocking(false) }
            }
            client.go()
            #expect(wait { pager.statistics.missingFaults > 8 })
            kill(client.pid, SIGKILL)
            let stopping = Toucher { error { () throws(PagerError) in try pager.stop(.poison) } }
            #expect(stopping.value() == .some(nil))
            isOver.value.store(true, ordering: .relaxed)
            #expect(clearing.join())
            _ = client.wait()
        }
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
