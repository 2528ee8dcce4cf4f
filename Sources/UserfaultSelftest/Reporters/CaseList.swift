/// The list of results, for people and for programs.
package enum CaseList {
    package enum Format: String, CaseIterable, Sendable {
        case pretty, names, json, coverage
    }

    package static func write(_ results: [SelectedResult], as format: Format, to output: ReportOutput) {
        switch format {
        case .names: results.forEach { output.line($0.identity) }
        case .pretty: groups(of: results).forEach { output.line(text(of: $0)) }
        case .json: output.json(groups(of: results).map(Entry.init))
        case .coverage: output.write(CoveragePage.text(of: groups(of: results).map { $0[0].selftestCase }))
        }
    }

    /// The results of each case.
    private static func groups(of results: [SelectedResult]) -> [[SelectedResult]] {
        results.reduce(into: []) { groups, result in
            if groups.last?[0].selftestCase.name == result.selftestCase.name {
                groups[groups.count - 1].append(result)
            } else {
                groups.append([result])
            }
        }
    }

    private static func text(of results: [SelectedResult]) -> String {
        let selftestCase = results[0].selftestCase
        let types = results.compactMap(\.memory?.rawValue).joined(separator: " ")
        let covers = selftestCase.covers.map { "\n    covers: \($0.rawValue)" }.joined()
        return "\(selftestCase.name)\(types.isEmpty ? "" : " on \(types)")\n    \(selftestCase.summary)\(covers)"
            + "\n    tags: \(tags(of: results).joined(separator: " "))"
    }

    /// The tags that any of a case's results has, in the order of the first.
    private static func tags(of results: [SelectedResult]) -> [String] {
        results.flatMap(\.tags).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    private struct Entry: Encodable {
        enum CodingKeys: String, CodingKey {
            case name = "case"
            case memory, summary, covers, tags, requires, limit
        }

        let name: String
        let memory: [MemoryType]
        let summary: String
        let covers: [Coverage]
        let tags: [String]
        let requires: [String]
        /// Seconds.
        let limit: Double

        init(_ results: [SelectedResult]) {
            let selftestCase = results[0].selftestCase
            name = selftestCase.name
            memory = results.compactMap(\.memory)
            summary = selftestCase.summary
            covers = selftestCase.covers
            tags = CaseList.tags(of: results)
            requires = selftestCase.requires.map { "\($0)" }
            limit = selftestCase.limit.inSeconds
        }
    }
}
