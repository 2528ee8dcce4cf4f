import FoundationEssentials
import Glibc

/// Why a file that the command line names is no use.
package struct UselessFile: Error, CustomStringConvertible {
    package let description: String
}

/// Failures that a file says are known, each with its reason: bugs of a kernel that are being worked on.
///
/// The form is that of `Tests/KernelMatrix/known-bugs.json`.
package struct KnownFailures: Sendable {
    private struct Entry: Decodable {
        let what: String
        /// Names of cases, or globs on CASE/TYPE.
        let cases: [String]
        /// The kernel series that have the bug, such as `6.18`; all if there is none.
        let series: [String]?
    }

    private let entries: [Entry]

    /// A run in which every failure is one.
    package init() { entries = [] }

    package init(file: String) throws(UselessFile) {
        guard let text = ProcFile.text(file) else { throw UselessFile(description: "\(file) cannot be read") }
        do {
            entries = try JSONDecoder().decode([Entry].self, from: Data(text.utf8))
        } catch {
            throw UselessFile(
                description: "\(file) is not a list of known failures, "
                    + #"[{"what": "REASON", "cases": ["CASE", "CASE/TYPE"], "series": ["6.18"]}]: \#(error)"#)
        }
        let results = (AllCases.cases + SelfCheckCases.cases).flatMap(\.results)
        for name in entries.flatMap(\.cases) where !results.contains(where: { Self.matches(name, $0) }) {
            throw UselessFile(
                description: "\(file): no case or result is called '\(name)'; see uffd-selftest list for what there is")
        }
    }

    private static func matches(_ name: String, _ result: SelectedResult) -> Bool {
        name == result.selftestCase.name || fnmatch(name, result.identity, 0) == 0
    }

    /// Why a failure of the result is known on a kernel of this release, such as `6.18.44-generic`; nil if it is not.
    func reason(for result: SelectedResult, release: String) -> String? {
        let series = release.split { !$0.isNumber }.prefix(2).joined(separator: ".")
        return entries.first { entry in
            entry.series?.contains(series) ?? true && entry.cases.contains { Self.matches($0, result) }
        }?.what
    }
}
