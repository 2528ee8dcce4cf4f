import Foundation
import Testing

@testable import UserfaultSelftest

/// What the cases answer for: the kernel's own results by name, and every behaviour of the coverage page.
@Suite struct CoverageTests {
    private static let package = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
        .standardized

    private let upstream: Set<String>

    init() throws {
        let file = try #require(Bundle.module.url(forResource: "upstream-results", withExtension: "txt"))
        upstream = Set(try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init))
    }

    @Test func everyUpstreamResultIsThere() {
        #expect(upstream.count == 114)
        let ours = Set(AllCases.cases.flatMap(\.results).map(\.title))
        let missing = upstream.subtracting(ours)
        #expect(missing.isEmpty, "upstream has them, this suite has not: \(missing)")
    }

    @Test func theCasesOfUpstreamSaySo() {
        for selftestCase in AllCases.cases {
            let isUpstreams = !upstream.isDisjoint(with: selftestCase.results.map(\.title))
            #expect(selftestCase.covers.contains(.upstream) == isUpstreams, "\(selftestCase.name)")
        }
    }

    @Test func noTwoCasesHaveTheSameName() {
        let names = Dictionary(grouping: AllCases.cases, by: \.name)
        #expect(names.filter { $0.value.count > 1 }.keys.sorted() == [])
    }

    @Test func everyBehaviourIsCovered() {
        let covered = Set(AllCases.cases.flatMap(\.covers))
        let missing = Coverage.allCases.filter { !covered.contains($0) }
        #expect(missing.isEmpty, "no case covers \(missing)")
    }

    @Test func theCoveragePageIsWhatListPrints() throws {
        let page = try String(contentsOf: Self.package.appending(path: "docs/selftest-coverage.md"), encoding: .utf8)
        let printed = try SelftestProgram.run("list", "--format", "coverage").output
        let isSame = page == printed
        #expect(isSame, "run uffd-selftest list --format coverage >docs/selftest-coverage.md")
    }

    /// Each result of the kernel's pagemap_ioctl test, by its function or title and its number there.
    @Test func everyPagemapResultIsThere() throws {
        let file = try #require(Bundle.module.url(forResource: "pagemap-results", withExtension: "txt"))
        let rows = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
        #expect(Set(rows).count == 119)
        let ours = Set(AllCases.cases.flatMap(\.results).map(\.identity))
        let missing = rows.filter { row in !ours.contains(String(row.split(separator: " ").last ?? "")) }
        #expect(missing.isEmpty, "no case has them: \(missing)")
    }

    @Test func theRegressionsNameResults() throws {
        /// A fix, with the results that tell it apart, or with what was tried if none does.
        struct Regression: Decodable { let fix: String, results: [String]?, tried: String? }
        let file = Self.package.appending(path: "Tests/KernelMatrix/regressions.json")
        let regressions = try JSONDecoder().decode([Regression].self, from: Data(contentsOf: file))
        for regression in regressions {
            #expect((regression.results == nil) != (regression.tried == nil), "\(regression.fix)")
            #expect(Selection(filters: regression.results ?? []).uselessGlobs() == [], "\(regression.fix)")
        }
        #expect(!regressions.isEmpty)
    }

    @Test func everyCallIsATagOfAResult() {
        let tags = Set(AllCases.cases.flatMap(\.results).flatMap(\.tags))
        for call in KernelCall.allCases { #expect(tags.contains(call.rawValue)) }
        for tag in ["root", "changes-host", "slow", "upstream", "quick", "since-4.3", "since-6.8", "since-7.3"] {
            #expect(tags.contains(tag), "no result has the tag \(tag)")
        }
    }

    @Test func theQuickSetTouchesEveryCallAndMemoryType() {
        let quick = AllCases.cases.flatMap(\.results).filter(QuickSet.contains)
        #expect(MemoryType.allCases.filter { memory in !quick.contains { $0.memory == memory } } == [])
        let tags = Set(quick.flatMap(\.tags))
        #expect(KernelCall.allCases.filter { !tags.contains($0.rawValue) } == [])
        #expect(!tags.contains("slow"))
        #expect(QuickSet.globs.filter { glob in !quick.contains { fnmatch(glob, $0.identity, 0) == 0 } } == [])
    }
}
