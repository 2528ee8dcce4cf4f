import Testing
import UserfaultFD

@testable import UserfaultPager

/// What a pager says of what it does, and how fast it loads what nobody waits for.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ObservationTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(2)]

    /// What is loaded for memory that has gone meanwhile is no fill, and asks the kernel nothing.
    @Test
    func aLoadThatComesTooLateIsNoFill() throws {
        let gate = Gate()
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: GatedSource(gate: gate))
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        try pager.prefetch(region, count: pageBytes)
        try #require(gate.waitUntilReached())
        try pager.remove(region, .leaveZeros)
        gate.open()
        let statistics = pager.settledStatistics
        #expect(statistics.fill.count == 0)
        #expect(statistics.mappingWasChanging == 0)
        try pager.stop(.poison)
    }

    @Test(arguments: services)
    func everyRegionCountsForItself(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 24 * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(service: service, handlers: 2))
        let options = RegionOptions(readAhead: .none)
        let first = try pager.add(mapping.range.part(at: 0, count: 16 * pageBytes), options: options)
        let second = try pager.add(mapping.range.part(at: 16 * pageBytes, count: 8 * pageBytes), options: options)
        try pager.start()
        let range = mapping.range
        let touched = [0, 1, 2] + (16..<21)
        let words = Toucher.value { touched.map { range.loadWord($0 * pageBytes) } }
        #expect(words == touched.map { NumberedSource.word(($0 < 16 ? $0 : $0 - 16) * pageBytes) })
        #expect(pager.settledStatistics.pagesCopied == 8)
        #expect(try pager.statistics(of: first).missingFaults == 3)
        #expect(try pager.statistics(of: first).pagesCopied == 3)
        #expect(try pager.statistics(of: second).missingFaults == 5)
        #expect(try pager.statistics(of: second).bytesFilled == UInt64(5 * pageBytes))
        try pager.populate(second)
        #expect(try pager.statistics(of: second).pagesCopied == 8)
        #expect(try pager.statistics(of: first).pagesCopied == 3)
        try pager.remove(first, .poison)
        #expect(throws: PagerError.noSuchRegion) { try pager.statistics(of: first) }
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesCopied == 11)
    }

    @Test(arguments: services)
    func theTraceSaysWhatBecameOfEachFault(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let pager = try Pager(
            UserfaultFD(features: .threadID), source: FlakySource(failures: 1),
            configuration: PagerConfiguration(service: service, traceCapacity: 16))
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        let thread = Toucher.value {
            for page in [5, 1] { _ = range.loadWord(page * pageBytes) }
            return UInt32(NativeThread.currentID)
        }
        #expect(wait { pager.tracedFaults().count == 3 })
        // Numbered in the order in which they ended, which the second attempt and the next fault may do either way.
        let faults = pager.tracedFaults().sorted { ($0.time, $0.earlierAttempts) < ($1.time, $1.earlierAttempts) }
        #expect(faults.map(\.ending) == [.postponed, .filled, .filled])
        #expect(faults.map(\.fault.address) == [5, 5, 1].map { range.start + UInt($0 * pageBytes) })
        #expect(faults.map(\.earlierAttempts) == [0, 1, 0])
        #expect(faults.allSatisfy { $0.fault.threadID == thread && $0.regionID == region.id })
        #expect(faults.allSatisfy { $0.fault.kind == .missing && $0.service >= $0.load + $0.fill })
        #expect(faults[1...].allSatisfy { $0.fill > 0 })
        #expect(Set(pager.tracedFaults(after: 1)) == Set(faults.filter { $0.number > 1 }))
        try pager.stop(.poison)
    }

    /// Nobody waits for the first page of a piece either.
    @Test(arguments: services)
    func whatIsPopulatedIsReadAhead(service: PagerConfiguration.Service) throws {
        let pages = 200
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(service: service))
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        #expect(Toucher.value { range.loadWord(pageBytes) } == NumberedSource.word(pageBytes))
        try pager.populate(region)
        #expect(pager.settledStatistics.pagesCopied == UInt64(pages))
        #expect(try pager.statistics(of: region).pagesReadAhead == UInt64(pages - 1))
        try pager.stop(.poison)
    }

    /// A rate that lets no second piece begin while the test runs.
    @Test(arguments: services)
    func aRateLimitsPopulateAndNoFault(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 1024 * pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(),
            configuration: PagerConfiguration(service: service, backgroundBytesPerSecond: 1))
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let failure = error { () throws(PagerError) in try pager.populate(region, within: .milliseconds(100)) }
        guard case .timedOut(let left) = failure else {
            Issue.record("it was not held up")
            return
        }
        // At most one piece for each thread that loads; none where no thread had a processor by then.
        #expect((1024 - 4 * 64...1024).contains(left))
        let range = mapping.range
        let words = Toucher.value { stride(from: 3, to: 1024, by: 17).map { range.loadWord($0 * pageBytes) } }
        #expect(words == stride(from: 3, to: 1024, by: 17).map { NumberedSource.word($0 * pageBytes) })
        try pager.prefetch(region, count: mapping.count)
        try pager.stop(.poison)
    }
}
