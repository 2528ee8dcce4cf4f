/// How one result ended.
package struct CaseResult: Sendable {
    package enum Outcome: String, Sendable, Codable {
        case pass, fail, skip
        /// It failed, as the file of known failures says.
        case xfail
    }

    package let selected: SelectedResult
    package var outcome = Outcome.pass
    /// Why it was skipped, or in one line what failed.
    package var reason: String?
    package var seconds: Double
    /// What a reader needs to know besides: all about a failure, notes about a pass.
    package var detail: [String]
    /// Whose doing the skip is; nil for any other outcome.
    package private(set) var cause: SkipCause?
    /// Whether it passed although the file of known failures says that it fails.
    private(set) var isUnexpectedPass = false

    /// Whether another try may come to a verdict.
    var isByChance: Bool { cause == .chance }

    mutating func skip(_ reason: String, _ cause: SkipCause) {
        outcome = .skip
        self.reason = reason
        self.cause = cause
    }

    package mutating func fail(_ reason: String, detail lines: [String]) {
        if outcome != .fail {
            outcome = .fail
            cause = nil
            self.reason = reason
        }
        detail += lines
    }

    /// Makes a failure one that was expected.
    mutating func excuse(_ known: KnownFailures.Known) {
        if outcome == .fail {
            outcome = .xfail
            detail.insert("seen: \(reason ?? "")", at: 0)
            reason = "known: \(known.reason)"
        } else if outcome == .pass, !known.isSometimes {
            isUnexpectedPass = true
            detail.append("it passed, although it is known to fail: \(known.reason)")
        }
    }
}

package struct Totals: Sendable, Equatable, Encodable {
    /// How many passed, but for those that are known to fail.
    package private(set) var pass = 0
    package private(set) var fail = 0
    package private(set) var skip = 0
    package private(set) var xfail = 0
    /// How many of those that passed are known to fail.
    package private(set) var xpass = 0

    package var all: Int { passed + fail + skip + xfail }
    /// How many passed, whatever is known of them.
    package var passed: Int { pass + xpass }

    mutating func count(_ result: CaseResult) {
        switch result.outcome {
        case .pass: if result.isUnexpectedPass { xpass += 1 } else { pass += 1 }
        case .fail: fail += 1
        case .skip: skip += 1
        case .xfail: xfail += 1
        }
    }
}
