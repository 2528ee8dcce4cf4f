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
        #expect(throws: PagerError.badRange(range)) { try pager.add(range, offset: 7) }
        #expect(throws: PagerError.badRange(range)) { try pager.add(range, offset: -pageBytes) }
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
