/// What one bounce does differently: the bits of its number, as upstream numbers them.
struct BounceMode: OptionSet, CustomStringConvertible, Sendable {
    let rawValue: Int

    /// Threads take pages at random, not one after the other.
    static let random = BounceMode(rawValue: 1 << 0)
    /// All threads go through the same pages at the same time.
    static let racing = BounceMode(rawValue: 1 << 1)
    /// All contents are compared when the bounce is over.
    static let verify = BounceMode(rawValue: 1 << 2)
    /// Fault threads poll, and do not block in read.
    static let poll = BounceMode(rawValue: 1 << 3)

    var description: String {
        let names = [
            contains(.random) ? "rnd" : nil, contains(.racing) ? "racing" : nil, contains(.verify) ? "ver" : nil,
            contains(.poll) ? "poll" : "read",
        ]
        return names.compactMap { $0 }.joined(separator: " ")
    }
}
