import CTestSupport
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
        /// Whether other pagers come and go on the same threads.
        var isShared = false
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

    /// One that follows forks, while others come and go.
    @Test(.followsForks)
    func pagersOfOneRuntime() async {
        await #expect(processExitsWith: .success) {
            try await StormTests.storm(
                Plan(faults: StormTests.faults, service: .automatic, forks: true, threads: 6, isShared: true))
        }
    }

    static func storm(_ plan: Plan) async throws {
        // The language's runtime opens what it waits with when it first waits.
        try await Task.sleep(for: .milliseconds(1))
        cts_note_no_errors()
        var features: UserfaultFD.Features = [.eventRemove, .eventUnmap, .eventRemap]
        if plan.forks { features.insert(.eventFork) }
        // Everything that is allocated once is allocated now.
        var first = plan
        first.faults = 200
        try run(first, features)
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
        let runtime = plan.isShared ? try PagerRuntime(loaders: 3) : nil
        let pager = try Pager(
            UserfaultFD(features: features), source: HaltingSource(), runtime: runtime,
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
        for number in 1...2 {
            guard let runtime else { break }
            let neighbour = Stormer(seed: UInt64(plan.threads + number) + 1, forks: false)
            touchers.append(repeatedly({ live(on: runtime, &$0.random) }, neighbour))
        }
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
        try runtime?.stop(.poison)
    }

    /// One life of another pager.
    ///
    /// - Returns: What was wrong, or `nil`.
    private static func live(on runtime: PagerRuntime, _ random: inout SplitMix) -> String? {
        do {
            let page = PageSize.base.bytes
            let mapping = try Mapping(anonymous: 64 * page)
            let source = ClosureSource<Never>(isSlow: random.below(2) == 0) {
                HaltingSource().load(offset: $0, into: &$1)
            }
            let pager = try Pager(UserfaultFD(), source: source, runtime: runtime)
            let region = try pager.add(mapping.range)
            try pager.start()
            for _ in 0..<random.below(64) {
                let offset = random.below(64) * page
                guard mapping.range.loadWord(offset) == NumberedSource.word(offset) else {
                    return "a neighbour is wrong"
                }
            }
            if random.below(4) == 0 { try pager.populate(region) }
            try pager.stop(random.below(2) == 0 ? .poison : .populate)
            return nil
        } catch {
            return "a neighbour: \(error)"
        }
    }
}
