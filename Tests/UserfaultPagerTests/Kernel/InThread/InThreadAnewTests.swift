import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Memory that is unmapped without a word, mapped anew, and served by another pager.
///
/// Each test has a process of its own: `SIGBUS` is the process's.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadAnewTests {
    /// A pager whose source says of every page that it is lost, or that it is zeros.
    private static func first(
        isLost: Bool, features: UserfaultFD.Features, _ options: RegionOptions
    ) throws -> InThread<ClosureSource<Never>> {
        try InThread(
            ClosureSource<Never>(isSignalSafe: true) { _, _ in isLost ? .poison : .zero }, features: features,
            options: options)
    }

    enum Before: CaseIterable, Codable {
        case untouched, filled, protected, lost
    }

    /// Whatever the first pager knew of the place, it is not asked for a page of the second one.
    @Test(arguments: Before.allCases, [true, false])
    func theSecondPagerIsAsked(before: Before, isRegisteredByPager: Bool) async {
        await #expect(processExitsWith: .success) {
            [before = before as Before, isRegisteredByPager = isRegisteredByPager as Bool] in
            let features: UserfaultFD.Features = before == .protected ? .writeProtect : []
            var options = RegionOptions(readAhead: .none, writeProtected: before == .protected)
            let first = try InThreadAnewTests.first(isLost: before == .lost, features: features, options)
            let range = first.range
            switch before {
            case .untouched: break
            case .filled, .protected: #expect((0..<16).allSatisfy { range.loadWord($0 * pageBytes) == 0 })
            case .lost:
                #expect(throws: PagerError.pagesFailed(16)) { try first.pager.populate(first.region) }
            }

            let uffd = try UserfaultFD(features: features.union(.sigbus))
            let owner = try uffd.duplicate()
            let pager = try Pager(uffd, source: NumberedSource())
            let anew = try Mapping(anonymous: range.count, placement: .replacing(range.start))
            if !isRegisteredByPager {
                let modes: UserfaultFD.RegisterModes = before == .protected ? [.missing, .writeProtect] : .missing
                _ = try owner.register(anew.range, modes: modes)
                options.registration = .byOwner
            }
            let region = try pager.add(anew.range, options: options)
            try pager.start()
            for page in 0..<16 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
            range.store(7, at: 3 * pageBytes)
            #expect(range.load(3 * pageBytes) == 7)
            if before == .protected { #expect(try pager.takeWritten(of: region) == [3 * pageBytes]) }
            // The first one has nothing left there that it could spoil.
            try first.pager.stop(.poison)
            #expect(range.loadWord(5 * pageBytes) == NumberedSource.word(5 * pageBytes))
            try pager.stop(.poison)
            extendLifetime(anew)
            extendLifetime(first)
        }
    }

    /// What a region has grown over is its own.
    @Test
    func theRegionThatHasGrownIsAsked() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let range = try Mapping(anonymous: 32 * pageBytes).release()
            let options = RegionOptions(readAhead: .none)
            let first = try Pager(
                UserfaultFD(features: .sigbus), source: ClosureSource<Never>(isSignalSafe: true) { _, _ in .poison })
            let lost = try first.add(range.dropFirst(10 * pageBytes), options: options)
            #expect(throws: PagerError.pagesFailed(22)) { try first.populate(lost) }

            let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            try pager.add(range.part(at: 0, count: 8 * pageBytes), options: options)
            try AddressSpace.unmap(range.dropFirst(8 * pageBytes))
            var mapping = Mapping(adopting: range.part(at: 0, count: 8 * pageBytes))
            try mapping.remap(count: range.count)
            #expect(mapping.release() == range)
            #expect((8..<12).allSatisfy { range.loadWord($0 * pageBytes) == 0 })
            try pager.stop(.poison)
            try first.stop(.poison)
        }
    }
}
