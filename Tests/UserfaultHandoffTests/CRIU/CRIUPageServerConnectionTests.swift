import Testing
import UserfaultFD
import UserfaultPager

@testable import UserfaultHandoff

@Suite("A connection to CRIU's page server", .timeLimit(.minutes(2)))
struct CRIUPageServerConnectionTests {
    private struct Source: AsynchronousPageSource {
        let connection: CRIUPageServerConnection

        func load(_ request: consuming PageRequest) {
            let count = request.byteCount
            connection.ask(for: request, count: count, of: 1)
        }
    }

    @Test("ends if the server is silent while something is outstanding, and not before")
    func silence() throws {
        let path = "/tmp/uffd-handoff-criu-\(UInt64.random(in: 0 ... .max))"
        let listener = try HandoffListener(path: path)
        defer { listener.removePath() }
        let connection = try CRIUPageServerConnection(CRIUPageServer(path: path), patience: .milliseconds(200))
        let thread = try NativeThread("page-server") { connection.run() }
        // With nothing to do it may be silent: longer than the thread looks for.
        #expect(!thread.join(until: Deadline(after: .milliseconds(500))))
        #expect(connection.failure == nil)
        let memory = try Mapping(anonymous: 1 << 20)
        let pager = try Pager(UserfaultFD(), source: AsynchronousSource(Source(connection: connection)))
        let region = try pager.add(memory.range, options: RegionOptions(failure: FailurePolicy(retries: 0)))
        try pager.start()
        #expect(throws: PagerError.self) { try pager.populate(region, within: .seconds(60)) }
        #expect(thread.join(until: Deadline(after: .seconds(20))))
        #expect(connection.failure == .timedOut)
        try pager.stop(.poison)
    }
}
