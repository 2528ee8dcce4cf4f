/// The list of all cases, for people and for programs.
package enum CaseList {
    package static func write(_ cases: [SelftestCase], asJSON: Bool, to output: ReportOutput) {
        if asJSON {
            output.json(cases.map(Entry.init))
        } else {
            cases.forEach { output.line(text(of: $0)) }
        }
    }

    private static func text(of selftestCase: SelftestCase) -> String {
        let types = selftestCase.memory.map(\.rawValue).joined(separator: " ")
        return "\(selftestCase.name)\(types.isEmpty ? "" : " on \(types)")\n    \(selftestCase.summary)"
    }

    private struct Entry: Encodable {
        enum CodingKeys: String, CodingKey {
            case name = "case"
            case memory, summary, covers, requires, limit
        }

        let name: String
        let memory: [MemoryType]
        let summary: String
        let covers: [String]
        let requires: [String]
        /// Seconds.
        let limit: Double

        init(_ selftestCase: SelftestCase) {
            name = selftestCase.name
            memory = selftestCase.memory
            summary = selftestCase.summary
            covers = selftestCase.covers
            requires = selftestCase.requires.map { "\($0)" }
            limit = selftestCase.limit.inSeconds
        }
    }
}
