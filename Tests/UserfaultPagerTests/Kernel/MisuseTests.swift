import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What a pager says to those who ask for what cannot be, and that nothing is lost by it.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct MisuseTests {
    private static let contradictions: [(PagerConfiguration, UserfaultFD.Features)] = [
        (PagerConfiguration(handlers: 0), []),
        (PagerConfiguration(shards: 0), []),
        (PagerConfiguration(waiting: .block), .eventRemove),
        (PagerConfiguration(service: .inline), .eventFork),
        (PagerConfiguration(service: .workers(0)), []),
        (PagerConfiguration(service: .workers(-1)), []),
        (PagerConfiguration(processors: [-1]), []),
        (PagerConfiguration(processors: [0, 100_000]), []),
        (PagerConfiguration(maximumChildren: -1), .eventFork),
        (PagerConfiguration(maximumChildren: 0), .eventFork),
        (PagerConfiguration(), .eventRemap),
        (PagerConfiguration(sourceTimeout: .zero), []),
        (PagerConfiguration(watchdogInterval: .zero), []),
        (PagerConfiguration(workingSetCapacity: -1), []),
        (PagerConfiguration(handlers: .max), []),
        (PagerConfiguration(shards: .max), []),
        (PagerConfiguration(service: .workers(.max)), []),
        (PagerConfiguration(maximumChildren: .max), .eventFork),
        (PagerConfiguration(shards: 1000, maximumChildren: 1000), .eventFork),
        (PagerConfiguration(workingSetCapacity: .max), []),
        (PagerConfiguration(traceCapacity: .max), []),
    ]

    @Test(arguments: contradictions.indices)
    func contradictionsAreRefused(_ index: Int) throws {
        let (configuration, features) = Self.contradictions[index]
        let error = #expect(throws: PagerError.self) {
            _ = try Pager(UserfaultFD(features: features), source: NumberedSource(), configuration: configuration)
        }
        guard case .configuration(let text) = error else {
            Issue.record("\(configuration): \(String(describing: error))")
            return
        }
        #expect(!text.isEmpty)
    }

    @Test
    func shardsAreOfThisProcessOnly() throws {
        let owner = try #require(Owner.process(id: getppid()))
        #expect(throws: PagerError.self) {
            _ = try Pager(
                UserfaultFD(), source: NumberedSource(), owner: owner, configuration: PagerConfiguration(shards: 2))
        }
    }

    /// What was refused has not used the state up.
    @Test
    func aRefusedPagerLeavesItsState() throws {
        let owner = try #require(Owner.process(id: getpid()))
        let configuration = PagerConfiguration(state: try PagerState())
        let runtime = try PagerRuntime()
        try runtime.stop(.leaveZeros)
        #expect(throws: PagerError.notRunning) {
            _ = try Pager(
                UserfaultFD(), source: NumberedSource(), owner: owner, runtime: runtime, configuration: configuration)
        }
        let pager = try Pager(UserfaultFD(), source: NumberedSource(), owner: owner, configuration: configuration)
        // Another has it now, and is refused without taking part in anything.
        let other = try PagerRuntime()
        #expect(throws: PagerError.state("another pager has the state")) {
            _ = try Pager(
                UserfaultFD(), source: NumberedSource(), owner: owner, runtime: other, configuration: configuration)
        }
        #expect(other.runtime.members.isEmpty)
        try pager.stop(.leaveZeros)
    }

    @Test
    func rangesAreChecked() throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let range = mapping.range
        for wrong in [
            range.part(at: 0, count: 0), range.part(at: 1, count: pageBytes), range.part(at: 0, count: pageBytes - 1),
        ] {
            #expect(throws: PagerError.badRange(wrong)) { try pager.add(wrong) }
        }
        for wrong in [7, -pageBytes, Int.max & ~(pageBytes - 1)] {
            #expect(throws: PagerError.badOffset(wrong)) { try pager.add(range, offset: wrong) }
        }
        try pager.add(range.part(at: 0, count: 4 * pageBytes))
        #expect(throws: PagerError.badRange(range)) { try pager.add(range) }
        // What was refused is not registered, and another may have it.
        let other = try Pager(UserfaultFD(), source: NumberedSource())
        try other.add(range.part(at: 4 * pageBytes, count: 4 * pageBytes))
        let error = #expect(throws: PagerError.self) { try other.add(range.part(at: 0, count: pageBytes)) }
        guard case .kernel(let answer) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(answer.errno == .resourceBusy)
    }

    /// Neither below the base page, nor of ordinary memory above it.
    @Test(arguments: [1, 2, 1024, 2048, 8192, 2 << 20])
    func pageSizesAreChecked(bytes: Int) throws {
        let mapping = try Mapping(anonymous: 4 << 20)
        let size = try #require(PageSize(bytes: bytes))
        let start = PageSize.twoMiB.roundDown(mapping.range.end &- (2 << 20))
        let range = AddressRange(start: start, count: 2 << 20)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        #expect(throws: PagerError.badPageSize(bytes)) { try pager.add(range, options: RegionOptions(pageSize: size)) }
        // What was refused is not registered.
        try pager.add(range)
        try pager.start()
        #expect(Toucher.value { range.loadWord(pageBytes) } == NumberedSource.word(pageBytes))
        try pager.stop(.leaveZeros)
    }

    @Test
    func readAheadIsChecked() throws {
        let mapping = try Mapping(anonymous: 128 * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let error = error { () throws(PagerError) in
            try pager.add(range, options: RegionOptions(readAhead: .adaptive(maximumPages: -5)))
        }
        #expect(error?.description == "a region's read-ahead is 0 pages or more: -5")
    }

    @Test(arguments: [
        (FailurePolicy(retries: -1), "a failure policy retries 0 times or more: -1"),
        (FailurePolicy(backOff: .milliseconds(-1)), "a failure policy backs off for no less than nothing"),
    ])
    func failurePoliciesAreChecked(policy: FailurePolicy, text: String) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let error = error { () throws(PagerError) in try pager.add(range, options: RegionOptions(failure: policy)) }
        #expect(error?.description.hasPrefix(text) == true)
    }

    @Test
    func errorsSayWhatIsWrong() {
        #expect("\(PagerError.badOffset(7))".contains("offset 7 in the source"))
        #expect("\(PagerError.badPageSize(1024))".contains("1024 bytes"))
        #expect(
            "\(PagerError.noThread(.tooManyOpenFiles))" == "no thread could be made: Too many open files (error 24)")
        let missing = PagerError.file(.noSuchFileOrDirectory, path: "/nonexistent")
        #expect("\(missing)" == "/nonexistent cannot be looked at: No such file or directory")
    }

    @Test(arguments: [.nan, -.infinity, -1, 0, 50, 100, 1e300, .infinity] as [Double])
    func percentilesOfEveryNumber(percent: Double) {
        var histogram = LatencyHistogram()
        histogram.buckets[3] = 1
        histogram.buckets[5] = 3
        histogram.maximum = 5
        #expect(histogram.percentile(percent) == (percent >= 50 ? 5 : 3))
    }

    @Test
    func eachStepIsTakenOnce() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try pager.add(mapping.range)
        try pager.start()
        #expect(throws: PagerError.alreadyStarted) { try pager.start() }
        try pager.remove(region, .populate)
        #expect(throws: PagerError.noSuchRegion) { try pager.remove(region, .populate) }
        #expect(throws: PagerError.noSuchRegion) { try pager.populate(region) }
        #expect(throws: PagerError.noSuchRegion) { try pager.takeWritten(of: region) }
        try pager.stop(.populate)
        try pager.stop(.populate)
        #expect(throws: PagerError.alreadyStarted) { try pager.start() }
        #expect(throws: PagerError.notRunning) { try pager.add(mapping.range) }
        #expect(throws: PagerError.notRunning) {
            try pager.replay(WorkingSet(offsets: [0], pageBytes: UInt32(pageBytes)))
        }
    }
}
