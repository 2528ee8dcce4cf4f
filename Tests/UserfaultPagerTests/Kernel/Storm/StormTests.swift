import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Many threads fault, drop, move, unmap and fork at once, and every byte that is read is right.
@Suite(.serialized, .timeLimit(.minutes(240)))
struct StormTests {
    /// What one storm is.
    struct Plan {
        var faults: UInt64
        var service: PagerConfiguration.Service
        var handlers = 1
        var forks = false
        var threads = 8
    }

    /// How many faults each test of this suite serves: a thousandth of what `Scripts/check/pager-storm.sh` asks for.
    static let faults = UInt64(getenv("PAGER_STORM_FAULTS").flatMap { String(cString: $0) } ?? "") ?? 10_000

    // Each in a process of its own, so that what it holds at its end is its own.

    @Test
    func handlersThatServeInPlace() async {
        await #expect(processExitsWith: .success) {
            try await StormTests.storm(Plan(faults: StormTests.faults, service: .inline, handlers: 2))
        }
    }

    @Test(.followsForks)
    func workersAndForks() async {
        await #expect(processExitsWith: .success) {
            try await StormTests.storm(Plan(faults: StormTests.faults, service: .workers(3), forks: true))
        }
    }

    static func storm(_ plan: Plan) async throws {
        // The language's runtime opens what it waits with when it first waits.
        try await Task.sleep(for: .milliseconds(1))
        var features: UserfaultFD.Features = [.eventRemove, .eventUnmap, .eventRemap]
        if plan.forks { features.insert(.eventFork) }
        // Everything that is allocated once is allocated now.
        try run(Plan(faults: 200, service: plan.service, handlers: plan.handlers, forks: plan.forks), features)
        let before = Footprint()
        try run(plan, features)
        let after = Footprint()
        #expect(after.descriptors == before.descriptors)
        // A sanitizer's own memory grows.
        guard !Sanitizer.isThere else { return }
        #expect(after.mappings <= before.mappings + 16)
        #expect(after.kibibytes < before.kibibytes + 65_536)
    }

    private static func run(_ plan: Plan, _ features: UserfaultFD.Features) throws {
        let pager = try Pager(
            UserfaultFD(features: features), source: HaltingSource(),
            configuration: PagerConfiguration(service: plan.service, handlers: plan.handlers))
        try pager.start()
        let failure = Shared(Mutex<String?>(nil))
        let isOver = Shared(Atomic<Bool>(false))
        let ground = CommonGround()
        func repeatedly(_ body: @escaping @Sendable (inout Stormer) -> String?, _ stormer: Stormer) -> Toucher<Void> {
            Toucher {
                var stormer = stormer
                while !isOver.value.load(ordering: .relaxed) {
                    guard let wrong = body(&stormer) else { continue }
                    failure.value.withLock { $0 = wrong }
                    isOver.value.store(true, ordering: .relaxed)
                }
            }
        }
        var touchers = (0..<plan.threads).map { number in
            let stormer = Stormer(seed: UInt64(number) + 1, forks: plan.forks && number == 0)
            return repeatedly({ $0.round(pager, ground) }, stormer)
        }
        let dropper = Stormer(seed: UInt64(plan.threads) + 1, forks: false)
        touchers.append(repeatedly({ ground.live(pager, &$0.random) }, dropper))
        while pager.statistics.faults < plan.faults, !isOver.value.load(ordering: .relaxed) {
            pauseThread(for: .milliseconds(10))
        }
        isOver.value.store(true, ordering: .relaxed)
        for toucher in touchers { #expect(toucher.join(seconds: 50), "a thread is stuck") }
        #expect(failure.value.withLock { $0 } == nil)
        for memory in pager.core.memories {
            let status = try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
            #expect(status.pending == 0)
            #expect(status.total == 0)
        }
        #expect(pager.statistics.failures == 0)
        #expect(pager.statistics.pagesPoisoned == 0)
        try pager.stop(.poison)
    }
}
