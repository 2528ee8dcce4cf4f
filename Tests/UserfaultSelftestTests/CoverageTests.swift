import Foundation
import Testing

@testable import UserfaultSelftest

/// What the cases answer for: the kernel's own results by name, and every entry of the coverage page.
@Suite struct CoverageTests {
    private static let package = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
        .standardized

    @Test func everyUpstreamResultIsThere() throws {
        let file = try #require(Bundle.module.url(forResource: "upstream-results", withExtension: "txt"))
        let upstream = try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
        #expect(upstream.count == 114)
        let ours = Set(AllCases.cases.flatMap(\.results).map(\.title))
        let missing = upstream.filter { !ours.contains($0) }
        #expect(missing.isEmpty, "upstream has them, this suite has not: \(missing)")
    }

    @Test func everyUpstreamNumberIsClaimed() {
        let claimed = Set(AllCases.cases.flatMap(\.covers))
        let missing = (1...114).map { "A.\($0)" }.filter { !claimed.contains($0) }
        #expect(missing.isEmpty, "no case says that it is upstream's \(missing)")
    }

    @Test func coveragePageTellsTheCases() throws {
        let page = Self.package.appending(path: "docs/selftest-coverage.md")
        let rows = try String(contentsOf: page, encoding: .utf8).split(separator: "\n").compactMap(Row.init)
        let letters = "ABCDEFGHIJKLMNOPQ".map { "3.4.\($0)" }
        #expect(rows.map(\.entry) == letters + (1...55).map { "part5.\($0)" })
        for row in rows {
            var names: [String] = []
            for one in AllCases.cases where one.covers.contains(row.entry) && !names.contains(one.name) {
                names.append(one.name)
            }
            #expect(!names.isEmpty, "no case covers \(row.entry): \(row.behaviour)")
            #expect(row.cases == names, "\(row.entry): run Scripts/check/coverage-table.py")
        }
    }

    /// A line of the page's tables.
    private struct Row {
        let entry: String
        let behaviour: String
        let cases: [String]

        init?(_ line: Substring) {
            let cells = line.split(separator: "|", omittingEmptySubsequences: false).dropFirst().dropLast()
                .map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3, cells[0].hasPrefix("3.4.") || cells[0].hasPrefix("part5.") else { return nil }
            entry = cells[0]
            behaviour = cells[1]
            cases = cells[2].split(separator: ", ").map { $0.trimmingCharacters(in: ["`"]) }
        }
    }
}
