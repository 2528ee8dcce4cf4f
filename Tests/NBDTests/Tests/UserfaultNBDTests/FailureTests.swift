import Foundation
import Synchronization
import Testing
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// Servers and connections that fail.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct FailureTests {
    private static let page = Served.page
    private static let patient = FailurePolicy(retries: 30, backOff: .milliseconds(1))

    private func isDisconnect(_ report: NBDReport) -> Bool { if case .disconnected = report { true } else { false } }

    @Test func oneReadInAHundredFails() throws {
        let server = try Server.pattern("16M", "error", parameters: ["error-pread=EIO", "error-pread-rate=1%"])
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(coalescedBytes: 4096, report: { reports.add($0) }))
        let served = try Served(source, bytes: 16 << 20, failure: Self.patient)
        #expect(Toucher.all((0..<4096).map { $0 * Self.page }, threads: 8) { served.isPattern($0) })
        try served.pager.stop(.poison)
        let failed = reports.count { if case .readFailed = $0 { true } else { false } }
        #expect(failed > 0)
        // Each was one attempt of the policy, and no page was lost.
        #expect(served.pager.statistics.retries == UInt64(failed))
        #expect(served.pager.statistics.failures == 0)
    }

    @Test(.enabled(if: geteuid() == 0, "needs root"))
    func aPageThatTheServerCannotReadIsLostAndNoOther() throws {
        let folder = try Server.makeFolder()
        let trigger = folder.appendingPathComponent("fails").path
        let server = try Server.nbdkit(
            in: folder, "--filter=error", "pattern", "1M", "error-pread=EIO", "error-pread-rate=100%",
            "error-pread-file=\(trigger)")
        let source = try NBDSource(server.uri)
        let policy = FailurePolicy(retries: 2, backOff: .microseconds(100))
        let served = try Served(source, bytes: 1 << 20, failure: policy, faults: .userAndKernelMode)
        #expect(served.readByKernel(0) == 0)
        #expect(FileManager.default.createFile(atPath: trigger, contents: nil))
        #expect(served.readByKernel(Self.page) == nil)
        try FileManager.default.removeItem(atPath: trigger)
        #expect(served.readByKernel(2 * Self.page) == UInt64(2 * Self.page).bigEndian)
        // It stays lost.
        #expect(served.readByKernel(Self.page) == nil)
        #expect(wait { served.reports.count { $0 == .failed(address: served.range.start + UInt(Self.page)) } == 1 })
        try served.pager.stop(.poison)
        #expect(served.pager.statistics.failures == 1)
        #expect(served.pager.statistics.retries == 2)
        #expect(served.reports.count { if case .failed = $0 { true } else { false } } == 1)
    }

    /// A page that is read along with others, and again by itself.
    @Test func aPageThatCannotBeReadIsReportedOnceForEachAttempt() throws {
        let folder = try Server.makeFolder()
        let trigger = folder.appendingPathComponent("fails").path
        let server = try Server.nbdkit(
            in: folder, "--filter=error", "--filter=delay", "pattern", "1M", "error-pread=EIO",
            "error-pread-rate=100%", "error-pread-file=\(trigger)", "rdelay=20ms")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri,
            configuration: NBDConfiguration(
                connections: 1, requestsPerConnection: 1, coalescedBytes: 1 << 20,
                report: { reports.add($0) }))
        let served = try Served(source, bytes: 1 << 20, failure: FailurePolicy(retries: 0))
        #expect(FileManager.default.createFile(atPath: trigger, contents: nil))
        try served.pager.prefetch(served.region, count: 1 << 20)
        #expect(wait { source.statistics.failures >= 1 && source.statistics.failures == source.statistics.requests })
        let failed = reports.count { if case .readFailed = $0 { true } else { false } }
        #expect(failed == source.statistics.failures)
        try served.pager.stop(.poison)
    }

    /// Killed five times while threads touch pages.
    @Test func aServerThatIsKilledComesBack() throws {
        let server = try Server.pattern("64M", "delay", parameters: ["rdelay=1ms"])
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(maximumBackOff: .milliseconds(50), report: { reports.add($0) }))
        let served = try Served(source, bytes: 64 << 20, failure: FailurePolicy(retries: 1000))
        let touched = Counter()
        let toucher = Toucher {
            #expect(
                Toucher.all((0..<8192).shuffled().map { $0 * Self.page * 2 }, threads: 8) { place in
                    touched.value.add(1, ordering: .relaxed)
                    return served.isPattern(place)
                })
        }
        for round in 1...5 {
            let enough = round * 500
            try #require(wait(seconds: 10) { touched.value.load(ordering: .relaxed) >= enough })
            server.kill()
            #expect(wait { reports.count(isDisconnect) >= round })
            try server.start()
        }
        try #require(toucher.join(seconds: 20))
        try served.pager.stop(.poison)
        #expect(reports.count(isDisconnect) >= 5)
        #expect(source.statistics.connections > 5)
        #expect(served.pager.statistics.failures == 0)
    }

    /// Without retries a page is lost with the connection, and the pages after it are served by the next one.
    @Test(.enabled(if: geteuid() == 0, "needs root"))
    func serviceGoesOnAfterPagesWereLost() throws {
        let server = try Server.pattern("1M")
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(connections: 1, maximumBackOff: .milliseconds(20)))
        let served = try Served(source, bytes: 1 << 20, failure: .poisonAtOnce, faults: .userAndKernelMode)
        #expect(served.readByKernel(0) == 0)
        // It answers nothing more.
        server.freeze()
        let lost = Counter()
        let toucher = Toucher { if served.readByKernel(Self.page) == nil { lost.value.store(1, ordering: .releasing) } }
        #expect(wait { source.statistics.reads == 2 })
        server.kill()
        #expect(toucher.join())
        #expect(lost.value.load(ordering: .acquiring) == 1)
        try server.start()
        #expect(wait { source.statistics.connections == 2 })
        #expect(served.readByKernel(2 * Self.page) == UInt64(2 * Self.page).bigEndian)
        try served.pager.stop(.poison)
        #expect(served.pager.statistics.failures == 1)
    }

    @Test(arguments: ["short", "silent", "cookie", "magic", "hole", "twice"])
    func aServerThatBreaksTheProtocolIsNeverBelieved(flaw: String) throws {
        let server = try Server.misbehaving(flaw)
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri,
            configuration: NBDConfiguration(
                responseTimeout: .milliseconds(300), maximumBackOff: .milliseconds(20), report: { reports.add($0) }))
        let served = try Served(source, bytes: 1 << 20, failure: FailurePolicy(retries: 1000))
        #expect(Toucher.all((0..<40).map { $0 * 6 * Self.page }) { served.isPattern($0) })
        try served.pager.stop(.poison)
        #expect(served.pager.statistics.failures == 0)
        #expect(reports.count(isDisconnect) >= 5)
    }

    /// An export that comes back with another size has other content.
    @Test func anExportThatChangedIsRefused() throws {
        let folder = try Server.makeFolder()
        let path = folder.appendingPathComponent("image").path
        try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: path))
        let server = try Server.nbdkit(in: folder, "file", path)
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri, configuration: NBDConfiguration(connections: 1, report: { reports.add($0) }))
        let served = try Served(source, bytes: 2 << 20, failure: FailurePolicy(retries: 1000))
        #expect(Toucher.all([0]) { _ in served.word(0) == 0x0707_0707_0707_0707 })
        server.kill()
        try Data(repeating: 8, count: 2 << 20).write(to: URL(fileURLWithPath: path))
        try server.start()
        #expect(
            wait {
                reports.count {
                    if case .notConnected(_, let error) = $0 { error.message.contains("had 1048576") } else { false }
                } >= 1
            })
        server.kill()
        try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: path))
        try server.start()
        #expect(Toucher.all([512 << 10]) { served.word($0) == 0x0707_0707_0707_0707 })
        try served.pager.stop(.poison)
    }

    /// It is an attempt for each page that waits, and the next one comes later.
    @Test(.enabled(if: geteuid() == 0, "needs root"), arguments: ["greets", "asked"])
    func aServerThatGreetsAndAnswersNothingIsAFailure(flaw: String) throws {
        let server = try Server.misbehaving(flaw)
        let source = try NBDSource(
            server.uri,
            configuration: NBDConfiguration(
                connections: 1, backOff: .milliseconds(100), maximumBackOff: .milliseconds(200)))
        let served = try Served(
            source, bytes: 1 << 20, failure: FailurePolicy(retries: 3, backOff: .milliseconds(1)),
            faults: .userAndKernelMode)
        let lost = Counter()
        let toucher = Toucher { if served.readByKernel(0) == nil { lost.value.store(1, ordering: .releasing) } }
        #expect(toucher.join())
        #expect(lost.value.load(ordering: .acquiring) == 1)
        let connections = source.statistics.connections
        #expect(connections <= 12)
        try served.pager.stop(.poison)
    }

    /// Connections that find out at different moments that nobody answers: one of them is always just trying.
    @Test(.enabled(if: geteuid() == 0, "needs root"))
    func pagesFailWhoseServerAnswersNobody() throws {
        let server = try Server.pattern("1M")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri,
            configuration: NBDConfiguration(
                connections: 2, connectTimeout: .milliseconds(1000), responseTimeout: .milliseconds(400),
                backOff: .milliseconds(1), maximumBackOff: .milliseconds(50), report: { reports.add($0) }))
        #expect(wait { source.statistics.connections == 2 })
        let served = try Served(
            source, bytes: 1 << 20, failure: FailurePolicy(retries: 2, backOff: .milliseconds(1)),
            faults: .userAndKernelMode)
        server.freeze()
        let lost = Counter()
        func touch(_ page: Int) -> Toucher {
            Toucher { if served.readByKernel(page * Self.page) == nil { lost.value.add(1, ordering: .releasing) } }
        }
        let first = touch(1)
        #expect(wait { reports.count(isDisconnect) >= 1 })
        let second = touch(2)
        #expect(first.join() && second.join())
        #expect(lost.value.load(ordering: .acquiring) == 2)
        try served.pager.stop(.poison)
    }

    /// Bytes are no progress: requests that are answered are.
    @Test(.enabled(if: geteuid() == 0, "needs root"))
    func aServerThatSendsAByteNowAndThenIsGivenUp() throws {
        let server = try Server.misbehaving("drip")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(
            server.uri,
            configuration: NBDConfiguration(
                connections: 1, responseTimeout: .milliseconds(300), report: { reports.add($0) }))
        let served = try Served(source, bytes: 1 << 20, failure: .poisonAtOnce, faults: .userAndKernelMode)
        let lost = Counter()
        let toucher = Toucher { if served.readByKernel(0) == nil { lost.value.store(1, ordering: .releasing) } }
        let isOver = toucher.join(seconds: 10)
        server.kill()
        #expect(isOver)
        #expect(lost.value.load(ordering: .acquiring) == 1)
        #expect(reports.count(isDisconnect) >= 1)
        try served.pager.stop(.poison)
    }

    /// A program may lower its limits after it has opened everything.
    @Test(.enabled(if: geteuid() == 0, "needs root"))
    func aSourceThatCannotWaitSaysWhy() throws {
        let server = try Server.pattern("1M")
        let reports = Reports<NBDReport>()
        let source = try NBDSource(server.uri, configuration: NBDConfiguration(report: { reports.add($0) }))
        #expect(wait { source.statistics.connections == 4 })
        let descriptors = __rlimit_resource_t(UInt32(RLIMIT_NOFILE.rawValue))
        var before = rlimit()
        #expect(getrlimit(descriptors, &before) == 0)
        var few = before
        few.rlim_cur = 2
        #expect(setrlimit(descriptors, &few) == 0)
        let error = #expect(throws: NBDError.self) { try source.dataRanges(in: 0..<4096, within: .seconds(5)) }
        #expect(setrlimit(descriptors, &before) == 0)
        #expect(error?.message.contains("limit of descriptors") == true)
        #expect(wait { reports.count(isDisconnect) == 4 })
        let later = #expect(throws: NBDError.self) { try source.dataRanges(in: 0..<4096, within: .seconds(5)) }
        #expect(later == error)
    }

    @Test func anExportThatIsTooLargeIsRefused() throws {
        let server = try Server.nbdkit("memory", "9223372036854775807")
        let error = #expect(throws: NBDError.self) { try NBDSource(server.uri) }
        #expect(error?.message.contains("at most 2^62") == true)
    }

    @Test func nobodyListens() throws {
        let folder = try Server.makeFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let error = #expect(throws: NBDError.self) { try NBDSource("nbd+unix:///?socket=\(folder.path)/nothing") }
        #expect(error?.operation == .connect)
        #expect(throws: NBDError.self) { try NBDSource("no address") }
        #expect(throws: NBDError.self) {
            try NBDSource("nbd://localhost", configuration: NBDConfiguration(connections: 0))
        }
        #expect(throws: NBDError.self) {
            try NBDSource("nbd://localhost", configuration: NBDConfiguration(connections: 257))
        }
        #expect(throws: NBDError.self) {
            try NBDSource("nbd://localhost", configuration: NBDConfiguration(responseTimeout: .zero))
        }
        let long = Duration.seconds(Int64.max) * 4
        #expect(throws: NBDError.self) {
            try NBDSource("no address", configuration: NBDConfiguration(connectTimeout: long, responseTimeout: long))
        }
    }

    /// The server takes a minute for each page.
    @Test func aPagerThatStopsGetsItsRequestsBackAtOnce() throws {
        let server = try Server.pattern("16M", "delay", parameters: ["rdelay=60"])
        weak var gone: NBDSource?
        do {
            let source = try NBDSource(server.uri, configuration: NBDConfiguration(requestsPerConnection: 4))
            gone = source
            let served = try Served(source, bytes: 16 << 20, failure: .poisonAtOnce)
            try served.pager.prefetch(served.region, count: 16 << 20)
            #expect(wait { source.statistics.requests >= 64 })
            let start = ContinuousClock.now
            try served.pager.stop(.poison)
            #expect(ContinuousClock.now - start < .seconds(20))
        }
        // What is outstanding holds neither pager nor source.
        #expect(wait { gone == nil })
    }
}
