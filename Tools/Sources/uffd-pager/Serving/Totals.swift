import UserfaultPager

/// Sums over the sessions of a machine, which go on after a session has ended.
struct Totals: Codable, Equatable, Sendable {
    var missingFaults: UInt64 = 0
    var minorFaults: UInt64 = 0
    var writeProtectFaults: UInt64 = 0
    var events: UInt64 = 0
    var filledBytes: UInt64 = 0
    var pagesCopied: UInt64 = 0
    var pagesZeroed: UInt64 = 0
    var pagesContinued: UInt64 = 0
    var pagesPoisoned: UInt64 = 0
    var pagesReadAhead: UInt64 = 0
    var retries: UInt64 = 0
    var failures: UInt64 = 0
    var strayFaults: UInt64 = 0

    /// Where each number comes from.
    private static let parts:
        [(any WritableKeyPath<Totals, UInt64> & Sendable, any KeyPath<PagerStatistics, UInt64> & Sendable)] = [
            (\.missingFaults, \.missingFaults), (\.minorFaults, \.minorFaults),
            (\.writeProtectFaults, \.writeProtectFaults), (\.events, \.events), (\.filledBytes, \.bytesFilled),
            (\.pagesCopied, \.pagesCopied), (\.pagesZeroed, \.pagesZeroed), (\.pagesContinued, \.pagesContinued),
            (\.pagesPoisoned, \.pagesPoisoned), (\.pagesReadAhead, \.pagesReadAhead), (\.retries, \.retries),
            (\.failures, \.failures), (\.strayFaults, \.strayFaults),
        ]

    mutating func add(_ statistics: PagerStatistics) {
        for (own, theirs) in Self.parts { self[keyPath: own] += statistics[keyPath: theirs] }
    }
}
