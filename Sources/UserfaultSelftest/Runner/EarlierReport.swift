import FoundationEssentials

/// A JSON report that an earlier run wrote.
package enum EarlierReport {
    private struct Document: Decodable {
        struct Result: Decodable {
            let `case`: String
            let memory: MemoryType?
            let outcome: CaseResult.Outcome
        }
        let results: [Result]
    }

    /// The identities of the results that failed: those that this program still has, and the others.
    package static func failures(in file: String) throws(UselessFile) -> (known: Set<String>, unknown: [String]) {
        guard let text = ProcFile.text(file) else { throw UselessFile(description: "\(file) cannot be read") }
        guard let document = try? JSONDecoder().decode(Document.self, from: Data(text.utf8)) else {
            throw UselessFile(description: "\(file) is not a report in the format json")
        }
        let failed = document.results.filter { $0.outcome == .fail }
            .map { result in result.memory.map { "\(result.case)/\($0.rawValue)" } ?? result.case }
        let known = failed.filter { Selection.result(identity: $0) != nil }
        guard !known.isEmpty || failed.isEmpty else {
            throw UselessFile(description: "this program has none of the results in \(file)")
        }
        return (Set(known), failed.filter { !known.contains($0) })
    }
}
