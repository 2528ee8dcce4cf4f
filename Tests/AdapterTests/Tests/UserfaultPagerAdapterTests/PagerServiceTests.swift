import Glibc
import InMemoryLogging
import Logging
import ServiceLifecycle
import ServiceLifecycleTestKit
import SystemPackage
import Testing
import UserfaultFD
import UserfaultPager
import UserfaultPagerService

@Suite(.timeLimit(.minutes(5)))
struct PagerServiceTests {
    private let entries = InMemoryLogHandler()
    private var logger: Logger { Logger(label: "test") { _ in entries } }

    @Test
    func shuttingDownStopsThePager() async throws {
        let memory = try Mapping(anonymous: 4 * 4096)
        let service = try PagerService(UserfaultFD(), source: loadedZeros, ending: .populate, logger: logger)
        try service.pager.add(memory.range)
        try await testGracefulShutdown { trigger in
            trigger.triggerGracefulShutdown()
            try await service.run()
        }
        #expect(throws: PagerError.notRunning) { try service.pager.populateAll() }
        // Nobody serves it any more, and nothing is missing.
        #expect(memory.withBytes { $0.unsafeLoad(fromByteOffset: 3 * 4096, as: UInt8.self) } == 0)
        #expect(entries.entries.map(\.message) == ["the pager has stopped"])
        #expect(entries.entries.first?.metadata["bytes"] == "\(4 * 4096)")
    }

    @Test
    func cancellingStopsThePager() async throws {
        let service = try PagerService(UserfaultFD(), source: loadedZeros, logger: logger)
        let task = Task { try await service.run() }
        task.cancel()
        try await task.value
        #expect(throws: PagerError.notRunning) { try service.pager.populateAll() }
    }

    @Test
    func theEndOfTheOwnerEndsTheService() async throws {
        var sockets: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &sockets) == 0)
        let child = fork()
        if child == 0 {
            close(sockets[0])
            try? UserfaultFD().send(over: FileDescriptor(rawValue: sockets[1]), payload: [UInt8(1)].span.bytes)
            // Until the other end is closed.
            var byte: UInt8 = 0
            _ = read(sockets[1], &byte, 1)
            _exit(0)
        }
        close(sockets[1])
        var message = try DescriptorPassing.receive(from: FileDescriptor(rawValue: sockets[0]))
        let service = try PagerService(
            message.descriptors.takeUserfaultFD(), source: loadedZeros, owner: #require(Owner.process(id: child)),
            logger: logger)
        close(sockets[0])
        try await service.run()
        #expect(entries.entries.map(\.level) == [.notice, .info])
        waitpid(child, nil, 0)
    }

    @Test
    func aPagerThatDoesNotStartFailsTheService() async throws {
        let service = try PagerService(UserfaultFD(), source: loadedZeros, logger: logger)
        try service.pager.start()
        await #expect(throws: PagerError.alreadyStarted) { try await service.run() }
        try await service.pager.stop(.poison)
    }

    @Test
    func reportsAreLogged() {
        let reports: [(PagerReport, Logger.Level)] = [
            (.stuck(address: 0x1000, nanoseconds: 2_000_000), .warning), (.unread(3), .warning),
            (.selfDeadlock(thread: 7, address: 0x2000), .critical), (.timedOut(address: 0x3000), .error),
            (.failed(address: 0x4000), .error), (.ownerGone, .notice), (.forkLost, .error),
            (.forkWaits, .error),
        ]
        for (report, _) in reports { logger.log(report) }
        #expect(entries.entries.map(\.level) == reports.map(\.1))
        #expect(entries.entries[0].metadata == ["address": "0x1000", "milliseconds": "2"])
    }
}
