import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Pages that were mapped anew without a word while work for which no thread waits was on its way to them.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct MappedAnewTests {
    private let pages = 16

    /// Maps the range anew, and registers it elsewhere.
    private func take(_ range: AddressRange, with other: borrowing UserfaultFD) throws {
        let address = UnsafeMutableRawPointer(bitPattern: range.start)
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS
        #expect(mmap(address, range.count, PROT_READ | PROT_WRITE, flags, -1, 0) == address)
        _ = try other.register(range, modes: .missing)
    }

    /// How many pages a descriptor can fill: those that nobody else has filled or poisoned.
    private func countFree(_ range: AddressRange, of other: borrowing UserfaultFD) -> Int {
        (0..<pages).count { page in
            do throws(UserfaultError) {
                _ = try other.zeropage(range.part(at: page * pageBytes, count: pageBytes))
                return true
            } catch {
                return false
            }
        }
    }

    @Test
    func whatWasLoadedForThePagerFillsNobodyElsesPages() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let other = try UserfaultFD()
        let gate = Gate()
        let source = GatedSource(gate: gate)
        let pager = try Pager(UserfaultFD(), source: source)
        let region = try pager.add(mapping.range)
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        #expect(gate.waitUntilReached())
        try take(mapping.range, with: other)
        gate.open()
        #expect(populating.join())
        #expect(countFree(mapping.range, of: other) == pages)
        try pager.stop(.poison)
        withExtendedLifetime(mapping) {}
    }

    /// The thread that waited may have been interrupted long ago, and have unmapped what it touched.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func whatWasLoadedForAThreadFillsNobodyElsesPage(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let other = try UserfaultFD()
        let gate = Gate()
        let pager = try Pager(
            UserfaultFD(), source: GatedSource(gate: gate), configuration: PagerConfiguration(service: service))
        try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let touching = Toucher { range.loadWord(0) }
        #expect(gate.waitUntilReached())
        try take(range, with: other)
        let start = MonotonicInstant.now.nanoseconds
        #expect(wait { MonotonicInstant.now.nanoseconds - start > 20_000_000 })
        gate.open()
        // The thread finds out for itself, and waits for the other descriptor.
        #expect(try other.poll(timeout: .seconds(20)))
        #expect(countFree(range, of: other) == pages)
        #expect(touching.value() == 0)
        try pager.stop(.poison)
        withExtendedLifetime(mapping) {}
    }

    /// Pages that come along from a slow source, and lie in another mapping, do not hold up the one that is waited for.
    @Test(arguments: [PagerConfiguration.Service.inline, .workers(2)])
    func aSlowSourceServesTwoMappings(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let loads = Shared(Atomic<Int>(0))
        let source = ClosureSource<Never> { offset, pages in
            loads.value.add(1, ordering: .relaxed)
            pauseThread(for: .milliseconds(15))
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(
            UserfaultFD(), source: source, configuration: PagerConfiguration(service: service))
        try pager.add(range, options: RegionOptions(readAhead: .adaptive(maximumPages: 8)))
        try mapping.protect(.read, range.part(at: 9 * pageBytes, count: 7 * pageBytes))
        try pager.start()
        let found = Toucher.value { (0..<16).map { range.loadWord($0 * pageBytes) } }
        #expect(found == (0..<16).map { NumberedSource.word($0 * pageBytes) })
        #expect(loads.value.load(ordering: .relaxed) == Int(pager.settledStatistics.missingFaults))
        try pager.stop(.poison)
        withExtendedLifetime(mapping) {}
    }

    @Test
    func pagesThatAreTriedAgainAreAskedForAgain() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let other = try UserfaultFD()
        let source = FlakySource(failures: .max)
        let pager = try Pager(UserfaultFD(), source: source)
        let region = try pager.add(
            mapping.range, options: RegionOptions(failure: FailurePolicy(retries: 1, backOff: .seconds(1))))
        try pager.start()
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        #expect(wait { pager.statistics.queued == pages })
        try take(mapping.range, with: other)
        #expect(populating.join())
        #expect(countFree(mapping.range, of: other) == pages)
        try pager.stop(.poison)
        withExtendedLifetime(mapping) {}
    }

    /// Of pages that were written together, one is mapped anew: the others' next writes are found.
    @Test
    func writesBesideAPageThatIsGoneAreFound() throws {
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(UserfaultFD(features: .writeProtect), source: ZeroSource())
        let region = try pager.add(range, options: RegionOptions(writeProtected: true))
        try pager.start()
        func write(_ some: [Int]) -> Bool {
            Toucher.value { some.forEach { range.store(1, at: $0 * pageBytes) } } != nil
        }
        let all = Array(0..<pages)
        #expect(write(all))
        #expect(try pager.takeWritten(of: region) == all.map { $0 * pageBytes })
        #expect(write(all))
        let gone = range.part(at: 4 * pageBytes, count: pageBytes)
        let address = UnsafeMutableRawPointer(bitPattern: gone.start)
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS
        #expect(mmap(address, pageBytes, PROT_READ | PROT_WRITE, flags, -1, 0) == address)
        #expect(try pager.takeWritten(of: region) == all.filter { $0 != 4 }.map { $0 * pageBytes })
        #expect(write([2, 7, 12]))
        #expect(try pager.takeWritten(of: region) == [2, 7, 12].map { $0 * pageBytes })
        try pager.stop(.populate)
        withExtendedLifetime(mapping) {}
    }
}
