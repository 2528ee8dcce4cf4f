import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Many pagers on the threads of one runtime.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct RuntimeTests {
    static let page = PageSize.base.bytes

    /// A pager of some pages, each of which its source numbers.
    final class Member: Sendable {
        let mapping: Mapping
        let pager: Pager<ClosureSource<Never>>
        let region: Region

        init(
            _ runtime: PagerRuntime, pages: Int = 8, isSlow: Bool = false, features: UserfaultFD.Features = [],
            configuration: PagerConfiguration = PagerConfiguration(), before: (@Sendable (Int) -> Void)? = nil
        ) throws {
            mapping = try Mapping(anonymous: pages * RuntimeTests.page)
            pager = try Pager(
                UserfaultFD(features: features),
                source: ClosureSource<Never>(isSlow: isSlow) { offset, room in
                    before?(offset)
                    return NumberedSource().load(offset: offset, into: &room)
                }, runtime: runtime, configuration: configuration)
            region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
        }

        /// Whether every page holds what its source says.
        var isRight: Bool {
            let range = mapping.range
            return Toucher.value {
                stride(from: 0, to: range.count, by: RuntimeTests.page).allSatisfy {
                    range.loadWord($0) == NumberedSource.word($0)
                }
            } ?? false
        }
    }

    /// The engine's threads, once there are so many: one names itself when it runs, and stays for a moment after its end.
    static func threadsAre(_ count: Int) -> Bool { wait { Footprint.threads(namedFrom: "uffd-") == count } }

    @Test(arguments: [false, true])
    func pagersShareThreads(isSlow: Bool) async {
        await #expect(processExitsWith: .success) { [isSlow] in
            let runtime = try PagerRuntime(loaders: 3)
            // A handler, a reader, three loaders, a clock.
            #expect(RuntimeTests.threadsAre(6))
            for _ in 0..<4 {
                let first = try Member(runtime, isSlow: isSlow)
                let second = try Member(runtime, isSlow: isSlow)
                #expect(first.isRight)
                #expect(second.isRight)
                #expect(RuntimeTests.threadsAre(6))
                try first.pager.stop(.poison)
                #expect(first.pager.settledStatistics.missingFaults == 8)
                try second.pager.stop(.populate)
            }
            try runtime.stop(.poison)
            #expect(RuntimeTests.threadsAre(0))
        }
    }

    /// The threads go with the last pager, and not before.
    @Test
    func pagersOutliveTheirRuntime() async {
        await #expect(processExitsWith: .success) {
            var runtime: PagerRuntime? = try PagerRuntime(loaders: 2)
            let client = try Member(runtime!)
            runtime = nil
            #expect(client.isRight)
            #expect(RuntimeTests.threadsAre(5))
            try client.pager.stop(.poison)
            #expect(RuntimeTests.threadsAre(0))
        }
    }

    /// Two sources hang: each has its share of the loaders, and the third pager finds one.
    @Test
    func aSourceThatHangsHoldsNoMoreThanItsShare() throws {
        let gate = Gate()
        let runtime = try PagerRuntime(loaders: 5, loadersPerPager: 2)
        let isHanging = Shared(Atomic<Int>(0))
        let hung = try (0..<2).map { _ in
            try Member(runtime, isSlow: true) { _ in
                isHanging.value.add(1, ordering: .relaxed)
                gate.pass()
            }
        }
        let touchers = hung.flatMap { client in
            (0..<8).map { page in Toucher { [range = client.mapping.range] in _ = range.load(page * Self.page) } }
        }
        #expect(wait { isHanging.value.load(ordering: .relaxed) == 4 })
        let other = try Member(runtime, isSlow: true)
        #expect(other.isRight)
        #expect(isHanging.value.load(ordering: .relaxed) == 4)
        gate.open()
        for toucher in touchers { #expect(toucher.join()) }
        try runtime.stop(.poison)
    }

    /// A pager stops in time though its source hangs, and the others do not notice.
    @Test
    func aPagerStopsWithoutWaitingForOthers() throws {
        let gate = Gate()
        let runtime = try PagerRuntime(loaders: 4)
        let hung = try Member(runtime, isSlow: true) { _ in gate.pass() }
        try hung.pager.prefetch(hung.region, count: hung.mapping.count)
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.timedOut(pagesLeft: 8)) {
            try hung.pager.populate(hung.region, within: .milliseconds(10))
        }
        let other = try Member(runtime, isSlow: true)
        #expect(other.isRight)
        try other.pager.stop(.poison)
        #expect(throws: PagerError.timedOut(pagesLeft: 8)) { try hung.pager.stop(.populate, within: .milliseconds(10)) }
        let third = try Member(runtime, isSlow: true)
        #expect(third.isRight)
        gate.open()
        try runtime.stop(.populate)
    }

    /// What is hung in a source that promised not to wait holds up its pager's stop no longer than the deadline.
    @Test
    func aHandlerThatHangsHoldsUpNoStop() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            alarm(60)
            let gate = Gate()
            let runtime = try PagerRuntime(handlers: 2, loaders: 1)
            let hung = try Member(runtime) { _ in gate.pass() }
            let other = try Member(runtime)
            let range = hung.mapping.range
            let toucher = Toucher { _ = range.load(0) }
            guard gate.waitUntilReached(), other.isRight else { exit(1) }
            let stopping = Toucher { [pager = hung.pager] in try? pager.stop(.poison, within: .milliseconds(50)) }
            guard stopping.join() else { exit(2) }
            _ = toucher.join()
            exit(3)
        }
    }

    /// Faults go before a populate, whichever pager it is of.
    @Test
    func aPopulateTakesNotEveryLoader() throws {
        let gate = Gate()
        let runtime = try PagerRuntime(loaders: 4, loadersPerPager: 4)
        let populating = try Member(runtime, pages: 1024, isSlow: true) { _ in gate.pass() }
        #expect(throws: PagerError.timedOut(pagesLeft: 1024)) {
            try populating.pager.populate(populating.region, within: .milliseconds(10))
        }
        let other = try Member(runtime, isSlow: true)
        #expect(other.isRight)
        gate.open()
        try runtime.stop(.poison)
    }

    /// A child of a fork that drops all it has does nothing to its parent's pagers.
    @Test
    func aChildThatDropsARuntimeDoesNothing() async {
        await #expect(processExitsWith: .success) {
            var runtime: PagerRuntime? = try PagerRuntime(loaders: 2)
            let mapping = try Mapping(anonymous: 8 * RuntimeTests.page)
            let range = mapping.range
            var pager: Pager<NumberedSource>? = try Pager(UserfaultFD(), source: NumberedSource(), runtime: runtime)
            try pager!.add(range)
            try pager!.start()
            let status = inFork {
                if (try? runtime!.stop(.poison)) != nil { return 1 }
                if (try? pager!.stop(.poison)) != nil { return 2 }
                pager = nil
                runtime = nil
                return 0
            }
            #expect(status == 0)
            #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
            try pager!.stop(.poison)
        }
    }

    /// One follows forks and another serves in place, whose source takes memory while a fork holds the heap.
    @Test(.followsForks)
    func forksAreFollowedBesideOthers() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let runtime = try PagerRuntime(loaders: 2)
            let followed = try Member(runtime, features: .eventFork)
            let other = try Member(runtime, pages: 512) { offset in
                let memory = malloc(5000 + offset % 512)
                free(memory)
            }
            let range = followed.mapping.range
            let reading = Toucher { [range = other.mapping.range] in
                for page in 0..<512 { _ = range.load(page * RuntimeTests.page) }
            }
            for page in 0..<8 {
                #expect(
                    inFork {
                        range.loadWord(page * RuntimeTests.page) == NumberedSource.word(page * RuntimeTests.page)
                            ? 0 : 1
                    } == 0)
            }
            #expect(reading.join())
            #expect(followed.isRight)
            try runtime.stop(.poison)
        }
    }

    /// Two pagers of one process, and a third of one that lives on.
    @Test
    func theEndOfAProcessEndsItsPagers() async {
        await #expect(processExitsWith: .success) {
            let runtime = try PagerRuntime(loaders: 1)
            let mapping = try Mapping(anonymous: RuntimeTests.page)
            let client = try Client.start(mapping)
            let owner = try #require(Owner.process(id: client.pid))
            let uffd = try client.receive()
            let reports = Reports()
            let configuration = PagerConfiguration(report: { reports.add($0) })
            let pagers = try (0..<2).map { _ in
                try Pager(
                    uffd.duplicate(), source: NumberedSource(), owner: owner, runtime: runtime,
                    configuration: configuration)
            }
            for pager in pagers { try pager.start() }
            let other = try Member(runtime)
            kill(client.pid, SIGKILL)
            #expect(reports.wait { $0.filter { $0 == .ownerGone }.count == 2 })
            #expect(other.isRight)
            #expect(client.wait() == -Int(SIGKILL))
            try runtime.stop(.poison)
        }
    }

    @Test
    func whatARuntimeCannotBeIsRefused() throws {
        func refuses(_ make: () throws -> PagerRuntime) {
            let error = #expect(throws: PagerError.self) { _ = try make() }
            if case .configuration = error { return }
            Issue.record("\(String(describing: error))")
        }
        refuses { try PagerRuntime(handlers: 0) }
        refuses { try PagerRuntime(loaders: 0) }
        refuses { try PagerRuntime(loaders: 2, loadersPerPager: 3) }
        refuses { try PagerRuntime(waiting: .block) }
        refuses { try PagerRuntime(processors: [100_000]) }
        let runtime = try PagerRuntime(loaders: 1)
        let inline = PagerConfiguration(service: .inline)
        #expect(throws: PagerError.self) { _ = try Member(runtime, configuration: inline) }
        try runtime.stop(.poison)
        #expect(throws: PagerError.notRunning) { _ = try Member(runtime) }
    }

    /// What 100 pagers take that have nothing to do, with all their threads.
    @Test(.enabled(if: !Sanitizer.isThere, "a sanitizer's own memory counts"))
    func idlePagersTakeLittle() async {
        await #expect(processExitsWith: .success) {
            // The C library reserves 64 MiB for each thread that takes memory, which is not the engine's.
            useOneArena()
            // What a process has once.
            let first = try PagerRuntime(loaders: 1)
            do { _ = try Member(first, isSlow: true) }
            try first.stop(.poison)
            #expect(RuntimeTests.threadsAre(0))
            let before = Footprint()
            let runtime = try PagerRuntime()
            let clients = try (0..<100).map { _ in try Member(runtime, isSlow: true) }
            #expect(RuntimeTests.threadsAre(11))
            let after = Footprint()
            #expect(after.addressSpace - before.addressSpace < 64 << 20)
            #expect(after.descriptors - before.descriptors < 120)
            #expect(clients.count == 100)
            try runtime.stop(.poison)
        }
    }
}

/// Has the C library reserve nothing for a thread that takes memory.
private func useOneArena() {
    typealias SetOption = @convention(c) (CInt, CInt) -> CInt
    // M_ARENA_MAX of malloc.h, which the module does not have.
    let maximum: CInt = -8
    if let symbol = dlsym(nil, "mallopt") { _ = unsafeBitCast(symbol, to: SetOption.self)(maximum, 1) }
}
