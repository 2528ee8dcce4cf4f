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
        /// Whether it also passes, so that a pass is nothing new.
        let sometimes: Bool?

        private enum Key: String, CaseIterable, CodingKey {
            case what, cases, series, sometimes
        }

        private struct AnyKey: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init?(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }

        init(from decoder: any Decoder) throws {
            let known = Key.allCases.map(\.rawValue)
            for key in try decoder.container(keyedBy: AnyKey.self).allKeys where !known.contains(key.stringValue) {
                let context = DecodingError.Context(
                    codingPath: decoder.codingPath,
                    debugDescription: "'\(key.stringValue)' is unknown, there are \(known.joined(separator: ", "))")
                throw DecodingError.dataCorrupted(context)
            }
            let container = try decoder.container(keyedBy: Key.self)
            what = try container.decode(String.self, forKey: .what)
            cases = try container.decode([String].self, forKey: .cases)
            series = try container.decodeIfPresent([String].self, forKey: .series)
            sometimes = try container.decodeIfPresent(Bool.self, forKey: .sometimes)
        }
    }

    private let entries: [Entry]

    /// A run in which every failure is one.
    package init() { entries = [] }

    /// What is known of the kernels that this program was tried on.
    package static let builtIn: KnownFailures = {
        do {
            return try KnownFailures(Data(PackageResources.known_bugs_json), from: builtInName)
        } catch {
            fatalError("\(error)")
        }
    }()

    /// What the command line calls it.
    package static let builtInName = "builtin"

    /// Whether the command line has named failures.
    var isEmpty: Bool { entries.isEmpty }

    /// - Parameter file: A path, or ``builtInName``.
    package init(file: String) throws(UselessFile) {
        guard file != Self.builtInName else {
            self = Self.builtIn
            return
        }
        guard let text = ProcFile.text(file) else { throw UselessFile(description: "\(file) cannot be read") }
        try self.init(Data(text.utf8), from: file)
    }

    private init(_ json: Data, from file: String) throws(UselessFile) {
        do {
            entries = try JSONDecoder().decode([Entry].self, from: json)
        } catch {
            throw UselessFile(
                description: "\(file) is not a list of known failures, "
                    + #"[{"what": "REASON", "cases": ["CASE", "CASE/TYPE"], "series": ["6.18"]}]: \#(Self.text(error))"#
            )
        }
        let results = (AllCases.cases + SelfCheckCases.cases).flatMap(\.results)
        for (index, entry) in entries.enumerated() {
            let place = "\(file), entry \(index + 1)"
            guard !entry.cases.isEmpty else { throw UselessFile(description: "\(place): it names no cases") }
            for name in entry.cases where !results.contains(where: { Selection.matches(name, $0) }) {
                throw UselessFile(
                    description:
                        "\(place): no case or result is called '\(name)'; see uffd-selftest list for what there is")
            }
            for series in entry.series ?? [] where series.wholeMatch(of: /\d+\.\d+/) == nil {
                throw UselessFile(description: "\(place): '\(series)' is no kernel series, such as 6.18")
            }
        }
    }

    /// What is wrong with a file and where, without the types of this program.
    private static func text(_ error: any Error) -> String {
        let (context, key): (DecodingError.Context, (any CodingKey)?) =
            switch error as? DecodingError {
            case .keyNotFound(let key, let context): (context, key)
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
                (context, nil)
            default: (.init(codingPath: [], debugDescription: "\(error)"), nil)
            }
        let place = context.codingPath.map { $0.intValue.map { "entry \($0 + 1)" } ?? "'\($0.stringValue)'" }
        let what = key.map { "'\($0.stringValue)' is missing" } ?? context.debugDescription
        return (place + [what]).joined(separator: ": ")
    }

    /// What is known of a result.
    struct Known {
        let reason: String
        let isSometimes: Bool
    }

    /// Why a failure of the result is known on a kernel of this release, such as `6.18.44-generic`; nil if it is not.
    func known(for result: SelectedResult, release: String) -> Known? {
        let series = release.split { !$0.isNumber }.prefix(2).joined(separator: ".")
        return entries.first { entry in
            entry.series?.contains(series) ?? true && entry.cases.contains { Selection.matches($0, result) }
        }.map { Known(reason: $0.what, isSometimes: $0.sometimes ?? false) }
    }
}
