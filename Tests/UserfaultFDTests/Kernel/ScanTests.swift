import CTestSupport
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// `PAGEMAP_SCAN` through its typed form: nothing it did is ever lost, and no limit is misread.
    @Suite struct Scan {
        /// Memory whose pages are all there and registered for asynchronous write protection.
        struct Tracked: ~Copyable {
            let uffd: UserfaultFD
            let memory: Mapping

            init(pages: Int, registered: Int) throws(UserfaultError) {
                let mapped = try Mapping(anonymous: pages * page)
                try mapped.advise(.noHugePage)
                let opened = try UserfaultFD(features: .writeProtectAsync)
                try opened.register(mapped.range.part(at: 0, count: registered * page), modes: .writeProtect)
                for index in 0..<pages { store(1, at: mapped.page(index).start) }
                uffd = opened
                memory = mapped
            }

            /// Protects all of it, and writes some pages.
            func write(_ indices: [Int]) throws {
                try PagemapScan().writeProtect(memory.range)
                for index in indices { store(2, at: memory.page(index).start) }
            }
        }

        @Test(.requires(.writeProtectAsync)) func aFailureKeepsWhatWasFound() throws {
            let tracked = try Tracked(pages: 8, registered: 4)
            try tracked.write([0, 2])
            let scan = try PagemapScan()
            do throws(PagemapScan.Failure) {
                _ = try scan.scan(tracked.memory.range, for: .takeWritten)
                Issue.record("the scan reached memory that is not tracked")
            } catch {
                #expect(error.error.errno == .notPermitted)
                #expect(error.regions.map(\.range) == [tracked.memory.page(0), tracked.memory.page(2)])
                #expect(error.regions.allSatisfy { $0.categories == .written })
                #expect(error.description.contains("after 2 regions"))
            }
            // They are protected again: a second scan does not find them.
            let tracking = tracked.memory.range.part(at: 0, count: 4 * page)
            #expect(try scan.scan(tracking, for: .takeWritten).regions == [])
        }

        @Test(.requires(.writeProtectAsync)) func holesEndWhereSomethingIsMapped() throws {
            let memory = try Mapping(anonymous: 8 * page)
            let range = memory.range
            try AddressSpace.unmap(range.part(at: 2 * page, count: 4 * page))
            let scan = try PagemapScan()
            #expect(try scan.firstMapped(in: range) == range.start)
            #expect(try scan.firstMapped(in: range.dropFirst(2 * page)) == range.start + UInt(6 * page))
            #expect(try scan.firstMapped(in: range.part(at: 2 * page, count: 4 * page)) == nil)
            let pieces = [range.part(at: 0, count: 2 * page), range.part(at: 6 * page, count: 2 * page)]
            _ = memory.release()
            for piece in pieces { try AddressSpace.unmap(piece) }
        }

        @Test(.requires(.writeProtectAsync), arguments: [nil, Int.max, 1 << 40, 1500])
        func anyLimitOfRegionsWillDo(limit: Int?) throws {
            let tracked = try Tracked(pages: 4096, registered: 4096)
            let written = Array(stride(from: 0, to: 4096, by: 2))
            try tracked.write(written)
            let result = try PagemapScan().scan(tracked.memory.range, for: .takeWritten, regionLimit: limit)
            #expect(result.regions.count == min(limit ?? .max, written.count))
            #expect(result.regions.enumerated().allSatisfy { $1.range == tracked.memory.page(2 * $0) })
            let rest = AddressRange(start: result.end, end: tracked.memory.range.end)
            let found = try PagemapScan().scan(rest, for: .takeWritten, regionLimit: nil).regions
            #expect(result.regions.count + found.count == written.count)
        }

        /// The kernel answers an end that lies before regions that it has reported, once they are more than 512.
        @Test(.requires(.writeProtectAsync), arguments: [511, 512, 513, 700, 1024, 1500])
        func everyRegionIsReportedOnce(count: Int) throws {
            let tracked = try Tracked(pages: 2 * count, registered: 2 * count)
            try tracked.write(Array(stride(from: 0, to: 2 * count, by: 2)))
            let look = PagemapScan.Query(all: .written, reported: .written)
            let result = try PagemapScan().scan(tracked.memory.range, for: look, regionLimit: nil)
            #expect(result.regions.map(\.range) == (0..<count).map { tracked.memory.page(2 * $0) })
            let once = try PagemapScan().scan(tracked.memory.range, for: look, regionLimit: count)
            #expect(once.regions == result.regions)
            #expect(once.end > result.regions[count - 1].range.start)
        }

        @Test(.requires(.writeProtectAsync), arguments: [0, 1, 2, 3, 100])
        func aBudgetOfPagesIsKept(limit: Int) throws {
            let tracked = try Tracked(pages: 8, registered: 8)
            try tracked.write([1, 2, 5])
            var query = PagemapScan.Query.takeWritten
            query.pageLimit = limit
            let result = try PagemapScan().scan(tracked.memory.range, for: query)
            let pages = result.regions.reduce(0) { $0 + $1.range.count / page }
            #expect(pages == min(limit, 3))
            if limit == 0 { #expect(result.end == tracked.memory.range.start) }
            query.pageLimit = nil
            let rest = try PagemapScan().scan(tracked.memory.range, for: query).regions
            #expect(rest.reduce(0) { $0 + $1.range.count / page } == 3 - pages)
        }

        @Test(.requires(.writeProtectAsync)) func noRegionsMeansNothingIsDone() throws {
            let tracked = try Tracked(pages: 4, registered: 4)
            try tracked.write([1])
            let nothing = try PagemapScan().scan(tracked.memory.range, for: .takeWritten, regionLimit: 0)
            #expect(nothing.regions == [] && nothing.end == tracked.memory.range.start)
            #expect(try PagemapScan().scan(tracked.memory.range, for: .takeWritten).regions.count == 1)
        }

        @Test(
            .requires(.writeProtectAsync),
            arguments: [(-1, nil), (nil, -1), (Int.min, nil), (nil, Int.min)] as [(Int?, Int?)])
        func limitsBelowZeroAreRefused(regions: Int?, pages: Int?) throws {
            let memory = try Mapping(anonymous: page)
            var query = PagemapScan.Query(all: .present)
            query.pageLimit = pages
            #expect(throws: PagemapScan.Failure.self) {
                try PagemapScan().scan(memory.range, for: query, regionLimit: regions)
            }
        }

        /// A huge page cannot be protected in part: a budget that would cut it ends the scan, and not in a loop.
        @Test(.requires(.writeProtectAsync), .requiresHugePages(1)) func aBudgetThatCutsAHugePage() throws {
            let size = PageSize.twoMiB
            let memory = try Mapping(anonymous: size.bytes, hugePages: size)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(memory.range, modes: .writeProtect)
            store(1, at: memory.range.start)
            var query = PagemapScan.Query.takeWritten
            query.pageLimit = 1
            let result = try PagemapScan().scan(memory.range, for: query)
            #expect(result.regions == [] ? result.end == memory.range.start : result.end == memory.range.end)
        }

        @Test func aProcessThatHasEndedIsTold() throws {
            let pid = cts_fork_waiting()
            let pagemap = try PagemapScan(process: pid)
            let memory = try Mapping(anonymous: page)
            store(1, at: memory.range.start)
            _ = cts_kill(pid)
            expectFailure(.pagemapScan, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try pagemap.isPopulated(memory.range.start)
            }
        }

        @Test func pagesThatAreThereAreTold() throws {
            let memory = try Mapping(anonymous: 2 * page)
            store(1, at: memory.page(1).start)
            let pagemap = try PagemapScan()
            #expect(try pagemap.isPopulated(memory.page(0).start) == false)
            #expect(try pagemap.isPopulated(memory.page(1).start + 5) == true)
            expectFailure(.pagemapScan, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try pagemap.isPopulated(.max)
            }
        }
    }
}
