import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

extension Trait where Self == ConditionTrait {
    /// `PAGEMAP_SCAN`.
    static var requiresPagemapScan: Self {
        .enabled("the kernel cannot tell written pages (Linux 6.7 can)") {
            (try? UserfaultFD().supportedFeatures.contains(.writeProtectAsync)) ?? false
                && (try? PagemapScan().scan(
                    AddressRange(start: 0, count: PageSize.base.bytes), for: PagemapScan.Query(all: .present))) != nil
        }
    }
}

@Suite(.serialized, .timeLimit(.minutes(5)))
struct DirtyTests {
    static let modes: [UserfaultFD.Features] = [.writeProtect, .writeProtectAsync]

    /// Pages that were loaded by the pager, and pages that were there before it came.
    @Test(.requiresPagemapScan, arguments: modes, [false, true])
    func everyWriteIsReportedOnce(mode: UserfaultFD.Features, werePresent: Bool) throws {
        let pages = 64
        let mapping = try Mapping(anonymous: pages * pageBytes, options: werePresent ? .populate : [])
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: ZeroSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        func write(_ numbers: [Int]) {
            let isDone = Toucher.value {
                for page in 0..<pages { _ = range.load(page * pageBytes) }
                for page in numbers { range.store(1, at: page * pageBytes + 5) }
                return true
            }
            #expect(isDone == true)
        }
        write([])
        #expect(try pager.takeWritten(of: region) == [])
        write([1, 2, 3, 40])
        #expect(
            try pager.takeWrittenRanges(of: region) == [pageBytes..<4 * pageBytes, 40 * pageBytes..<41 * pageBytes])
        #expect(try pager.takeWritten(of: region) == [])
        write([2, 63])
        #expect(try pager.takeWritten(of: region) == [2 * pageBytes, 63 * pageBytes])
        try pager.stop(.poison)
    }

    /// A first write to a page that was never there is one too, and what nobody has loaded can still be poisoned.
    @Test(.requiresPagemapScan, arguments: modes)
    func whatIsNotLoadedIsNotReported(mode: UserfaultFD.Features) throws {
        let pages = 16
        let mapping = try Mapping(anonymous: pages * pageBytes)
        let range = mapping.range
        let pager = try Pager(
            UserfaultFD(features: mode.union([.writeProtect, .writeProtectUnpopulated])), source: NumberedSource())
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, writeProtected: true))
        try pager.start()
        #expect(try pager.takeWritten(of: region) == [])
        #expect(
            Toucher.value {
                range.store(1, at: 3 * pageBytes)
                return true
            } == true)
        #expect(try pager.takeWritten(of: region) == [3 * pageBytes])
        try pager.stop(.poison)
        #expect(pager.settledStatistics.pagesPoisoned == UInt64(pages - 1))
    }

    /// Pages that were there before would never be reported: whoever wants to know of writes is told.
    @Test(.requiresPagemapScan, arguments: modes)
    func withoutAPageMapNothingIsPromised(mode: UserfaultFD.Features) async {
        let isAsynchronous = mode == .writeProtectAsync
        await #expect(processExitsWith: .success) { [isAsynchronous = isAsynchronous as Bool] in
            let mapping = try Mapping(anonymous: 4 * pageBytes, options: .populate)
            let features: UserfaultFD.Features = [.writeProtect, .writeProtectUnpopulated]
            let pager = try Pager(
                UserfaultFD(features: isAsynchronous ? features.union(.writeProtectAsync) : features),
                source: ZeroSource())
            let range = mapping.range
            let options = RegionOptions(readAhead: .none, writeProtected: true)
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            leaveDescriptors(0)
            let refusal = error { () throws(PagerError) in _ = try pager.add(range, options: options) }
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            guard case .kernel(let error) = refusal, error.errno == .tooManyOpenFiles else { exit(2) }
            let region = try pager.add(range, options: options)
            try pager.start()
            guard Toucher({ range.store(1, at: 5) }).join() else { exit(3) }
            guard try pager.takeWritten(of: region) == [0] else { exit(4) }
            try pager.stop(.poison)
        }
    }

    /// A page that is dropped from a mapping stays in the file as it was written.
    @Test(arguments: [UserfaultFD.Features(), .eventRemove])
    func aWrittenPageOfAFileIsReportedAlsoIfItIsDropped(features: UserfaultFD.Features) throws {
        let file = try Memfd(count: 4 * pageBytes)
        let pages = try SharedPages(file, from: NumberedSource())
        let mapping = try Mapping(file)
        let pager = try Pager(UserfaultFD(features: features), source: pages.source)
        let region = try pager.add(mapping.range, options: RegionOptions(writeProtected: true))
        try pager.start()
        let range = mapping.range
        let byte = Toucher.value {
            range.store(7, at: pageBytes)
            try? AddressSpace.advise(.dontNeed, range.part(at: pageBytes, count: pageBytes))
            return range.load(pageBytes)
        }
        #expect(byte == 7)
        #expect(try pager.takeWritten(of: region) == [pageBytes])
        try pager.stop(.poison)
    }
}
