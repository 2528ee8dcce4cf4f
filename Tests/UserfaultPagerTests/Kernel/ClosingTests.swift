import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Descriptors are closed while others are inside calls on them.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ClosingTests {
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func stoppingWaitsForCallsUnderWay(service: PagerConfiguration.Service) throws {
        // What is opened once, as by a sanitizer, is open now.
        try stopUnderCalls(service)
        let before = Footprint().descriptors
        for _ in 0..<5 { try stopUnderCalls(service) }
        // Threads of other tests may close some yet.
        #expect(wait { Footprint().descriptors <= before })
    }

    /// Threads that call everything there is, while the pager stops: they are told so, and no call of the kernel meets
    /// a descriptor that is closed or somebody else's.
    private func stopUnderCalls(_ service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 512 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: [.writeProtect, .writeProtectUnpopulated]), source: NumberedSource(),
            configuration: PagerConfiguration(service: service))
        let range = mapping.range
        let first = try pager.add(
            range.part(at: 0, count: 256 * pageBytes), options: RegionOptions(writeProtected: true))
        try pager.start()
        let calls: [@Sendable (Int) throws -> Void] = [
            { _ in try pager.populate(first) },
            { _ in _ = try pager.takeWritten(of: first) },
            { round in
                let part = range.part(at: (256 + round % 256) * pageBytes, count: pageBytes)
                try pager.remove(pager.add(part), .populate)
            },
        ]
        let begun = Shared(Atomic<Int>(0))
        let wrong = Shared(Mutex<[String]>([]))
        let callers = calls.map { call in
            Toucher {
                var round = 0
                while true {
                    do {
                        try call(round)
                        if round == 0 { begun.value.add(1, ordering: .relaxed) }
                        round += 1
                    } catch PagerError.notRunning {
                        return
                    } catch {
                        wrong.value.withLock { $0.append("\(error)") }
                        if round == 0 { begun.value.add(1, ordering: .relaxed) }
                        return
                    }
                }
            }
        }
        while begun.value.load(ordering: .relaxed) < calls.count { NativeThread.yield() }
        try pager.stop(.populate)
        for caller in callers { #expect(caller.join()) }
        #expect(wrong.value.withLock { $0 } == [])
        for offset in stride(from: 0, to: 256 * pageBytes, by: pageBytes) {
            #expect(range.loadWord(offset) == NumberedSource.word(offset))
        }
    }
}
